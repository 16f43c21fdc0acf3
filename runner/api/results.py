"""Reading what a run left."""

from __future__ import annotations

from pathlib import Path

from runner.results.reader import ResultsFile, open_results
from runner.store.database import RESULTS_NAME


def read_results(path: Path | str) -> ResultsFile:
    """
    Open the results of a run: a ``results.jsonl``, plain or gzip'd, or the run directory it is in.

    Iterating gives one result for each job, whose ``record`` has all that is known of it.

    Raises:
        ResultsError: There are none, or they can't be read as results.
    """
    place = Path(path)
    return open_results(place / RESULTS_NAME if place.is_dir() else place)

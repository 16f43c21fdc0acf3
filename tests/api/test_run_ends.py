"""How a run ends where something around it fails: whoever watches, or the files that are drawn from the store."""

from __future__ import annotations

from pathlib import Path

from runner.api.run import RunOptions, run
from runner.core.lifecycle import State
from tests.api.rundir import write_manifest

SIMULATED = RunOptions(simulate=True, scenario=str(Path(__file__).with_name("quick.yaml")))


def break_pipe(event: object) -> None:
    """Watch as a closed terminal does."""
    raise BrokenPipeError


async def test_trouble_of_whoever_watches_is_not_the_runs(tmp_path: Path) -> None:
    """
    An observer that fails at every event, such as a terminal that was closed, stops nothing.
    """
    manifest = write_manifest(tmp_path / "m.yaml", "a", "b")

    outcome = await run(manifest, output=tmp_path / "out", options=SIMULATED, observe=break_pipe)

    assert (0, 2) == (outcome.exit_code, outcome.counts[State.SUCCEEDED])


async def test_results_that_can_not_be_written_do_not_hide_how_the_run_ended(tmp_path: Path) -> None:
    """
    Exit 3 with the reason, and with everything else that is known of the run.
    """
    manifest = write_manifest(tmp_path / "m.yaml", "a", "b")
    (tmp_path / "out" / "summary.json").mkdir(parents=True)

    outcome = await run(manifest, output=tmp_path / "out", options=SIMULATED)

    assert (3, 2) == (outcome.exit_code, outcome.counts[State.SUCCEEDED])
    assert "can't be written" in outcome.stops[0].message

"""How a run ends if something around it fails: its observer, or the writing of its files."""

from __future__ import annotations

from pathlib import Path

from runner.api.options import RunOptions
from runner.api.run import run
from runner.core.lifecycle import State
from tests.api.rundir import write_manifest

SIMULATED = RunOptions(simulate=True, scenario=str(Path(__file__).with_name("quick.yaml")))


def break_pipe(event: object) -> None:
    """Fail as a closed terminal does."""
    raise BrokenPipeError


async def test_failing_observer_does_not_stop_the_run(tmp_path: Path) -> None:
    """
    An observer that fails at every event, such as a closed terminal, stops nothing.
    """
    manifest = write_manifest(tmp_path / "m.yaml", "a", "b")

    result = await run(manifest, output=tmp_path / "out", options=SIMULATED, observe=break_pipe)

    assert (0, 2) == (result.exit_code, result.counts[State.SUCCEEDED])


async def test_results_that_cannot_be_written_do_not_hide_how_the_run_ended(tmp_path: Path) -> None:
    """
    The exit code is 3, and the result has the reason and everything else that is known of the run.
    """
    manifest = write_manifest(tmp_path / "m.yaml", "a", "b")
    (tmp_path / "out" / "summary.json").mkdir(parents=True)

    result = await run(manifest, output=tmp_path / "out", options=SIMULATED)

    assert (3, 2) == (result.exit_code, result.counts[State.SUCCEEDED])
    assert "can't be written" in result.stops[0].message

"""What `import runner` offers, and what it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import runner
from runner.core.stop import StopReason

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "manifests" / "demo.yaml"


def test_importing_it_loads_nothing_heavy() -> None:
    """A program that only wants a name pays for no client, no server and no table."""
    script = (
        "import sys; import runner; "
        "print(sorted({'aiohttp', 'asyncio', 'rich', 'yaml', 'click', 'sqlite3', 'dataclasses'} & set(sys.modules)))"
    )

    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert "[]\n" == ran.stdout


def test_type_checkers_see_the_same_names() -> None:
    """The imports for type checkers and the table of what is loaded agree."""
    tree = ast.parse((ROOT / "runner" / "__init__.py").read_text())
    seen = {
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module not in ("__future__", "typing", "importlib")
        for alias in node.names
    }

    assert seen == {(module, name) for module, names in runner._NAMES.items() for name in names}


@pytest.mark.parametrize("name", sorted(runner._PLACES))
def test_every_name_is_there_and_documented(name: str) -> None:
    """A name that is promised can be loaded, and says what it is for."""
    assert getattr(runner, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As with any module, so that `hasattr` and mistakes behave."""
    with pytest.raises(AttributeError, match="has no attribute 'runn'"):
        runner.runn  # noqa: B018


@pytest.mark.slow
async def test_leaving_early_stops_without_loss(tmp_path: Path) -> None:
    """A program that has seen enough ends the run as Ctrl-C does; a resume finishes it, and pays once for each."""
    options = runner.RunOptions(simulate=True)
    async with runner.follow(MANIFEST, output=tmp_path, options=options) as events:
        async for event in events:
            if isinstance(event, runner.JobEnded):
                break
    stopped = events.outcome

    resumed = await runner.resume_async(tmp_path)

    assert [StopReason.INTERRUPTED] == [stop.reason for stop in stopped.stops]
    assert (0, 12) == (resumed.exit_code, resumed.counts[runner.State.SUCCEEDED])
    assert 12 == len((tmp_path / "simulator.jsonl").read_text().splitlines())


async def test_an_error_of_the_run_is_the_iterations(tmp_path: Path) -> None:
    """Whoever follows a run that can't begin hears why."""
    (tmp_path / "m.yaml").write_text("version: 1\njobs: []\n")

    options = runner.RunOptions(simulate=True)

    async with runner.follow(tmp_path / "m.yaml", output=tmp_path / "out", options=options) as events:
        with pytest.raises(runner.RunnerError, match="nothing was submitted"):
            async for _ in events:
                pass
    with pytest.raises(runner.RunnerError):
        _ = events.outcome


def test_results_of_a_directory_or_a_file(tmp_path: Path) -> None:
    """Either names the results; what is none gets a message."""
    outcome = runner.run(
        ROOT / "manifests" / "wan-kf2v.yaml", output=tmp_path, options=runner.RunOptions(simulate=True)
    )

    assert outcome.exit_code == 0
    assert 1 == runner.read_results(tmp_path).jobs == runner.read_results(tmp_path / "results.jsonl").jobs
    with pytest.raises(runner.RunnerError):
        runner.read_results(tmp_path / "run.db")


def test_the_version_is_that_of_the_package() -> None:
    """What requests and `--version` say is what is built: the same fact stands in two places for the sake of speed."""
    built = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

    assert built == runner.__version__

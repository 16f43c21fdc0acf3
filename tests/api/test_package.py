"""What `import runner` provides, and what it imports."""

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


def test_import_loads_nothing_heavy() -> None:
    """Importing the package is cheap: libraries are imported when a name is used."""
    script = (
        "import sys; import runner; "
        "print(sorted({'aiohttp', 'asyncio', 'rich', 'yaml', 'click', 'sqlite3', 'dataclasses'} & set(sys.modules)))"
    )

    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert "[]\n" == ran.stdout


def test_type_checkers_see_the_same_names() -> None:
    """The imports for type checkers and the table of names agree."""
    tree = ast.parse((ROOT / "runner" / "__init__.py").read_text())
    seen = {
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module not in ("__future__", "typing", "importlib")
        for alias in node.names
    }

    assert seen == {(module, name) for module, names in runner._NAMES.items() for name in names}


@pytest.mark.parametrize("name", sorted(runner._MODULES))
def test_every_name_exists_and_is_documented(name: str) -> None:
    """Each public name can be loaded, and has a docstring."""
    assert getattr(runner, name).__doc__


def test_unknown_name_is_an_attribute_error() -> None:
    """As with any module, so that `hasattr` works."""
    with pytest.raises(AttributeError, match="has no attribute 'runn'"):
        runner.runn  # noqa: B018


@pytest.mark.slow
async def test_leaving_early_stops_without_loss(tmp_path: Path) -> None:
    """Leaving the block stops the run as Ctrl-C does; a resume finishes it, and pays once for each job."""
    options = runner.RunOptions(simulate=True)
    async with runner.follow(MANIFEST, output=tmp_path, options=options) as events:
        async for event in events:
            if isinstance(event, runner.JobEnded):
                break
    stopped = events.result

    resumed = await runner.resume_async(tmp_path)

    assert [StopReason.INTERRUPTED] == [stop.reason for stop in stopped.stops]
    assert (0, 12) == (resumed.exit_code, resumed.counts[runner.State.SUCCEEDED])
    assert 12 == len((tmp_path / "simulator.jsonl").read_text().splitlines())


async def test_error_of_the_run_is_raised_by_the_iteration(tmp_path: Path) -> None:
    """If the run can't begin, iterating raises its error."""
    (tmp_path / "m.yaml").write_text("version: 1\njobs: []\n")

    options = runner.RunOptions(simulate=True)

    async with runner.follow(tmp_path / "m.yaml", output=tmp_path / "out", options=options) as events:
        with pytest.raises(runner.RunnerError, match="nothing was submitted"):
            async for _ in events:
                pass
    with pytest.raises(runner.RunnerError):
        _ = events.result


@pytest.mark.slow
def test_results_of_a_directory_or_a_file(tmp_path: Path) -> None:
    """A directory and a file both work; anything else is an error."""
    done = runner.run(
        ROOT / "manifests" / "wan-kf2v.yaml", output=tmp_path, options=runner.RunOptions(simulate=True)
    )

    assert 0 == done.exit_code
    assert 1 == runner.read_results(tmp_path).jobs == runner.read_results(tmp_path / "results.jsonl").jobs
    with pytest.raises(runner.RunnerError):
        runner.read_results(tmp_path / "run.db")


def test_version_is_that_of_the_package() -> None:
    """The version is written in two places for speed; both agree."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

    assert version == runner.__version__

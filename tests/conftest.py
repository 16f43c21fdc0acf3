"""What holds for all tests: folders of their own, and results that follow the published schema."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jsonschema_rs
import pytest
from hypothesis import settings

# A busy machine is no fault of the example that was tried just then.
settings.register_profile("without deadlines", deadline=None)
settings.load_profile("without deadlines")

_EXTENDED_S = 1200
"""The limit of a test that takes minutes, if it has none of its own."""

SCHEMA = json.loads((Path(__file__).parents[1] / "schemas" / "result.schema.json").read_text())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that take minutes, unless `-m` names their marker; then give them time on a busy machine."""
    extended = [item for item in items if item.get_closest_marker("extended")]
    if "extended" not in config.option.markexpr:
        config.hook.pytest_deselected(items=extended)
        items[:] = [item for item in items if not item.get_closest_marker("extended")]
    for item in extended:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_EXTENDED_S))


@pytest.fixture(scope="session", autouse=True)
def _result_lines_follow_the_schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """At the end of the tests, check the results of every run directory that they left."""
    yield
    assert [] == list(invalid_lines(tmp_path_factory.getbasetemp()))


def invalid_lines(folder: Path) -> Iterator[str]:
    """Find the lines of results beside a `run.db` that do not follow the schema; a torn last line is none."""
    validator = jsonschema_rs.validator_for(SCHEMA)
    for path, folders, files in os.walk(folder):
        if "results.jsonl" not in files or "run.db" not in files:
            continue
        folders[:] = [name for name in folders if name != "assets"]
        lines = Path(path, "results.jsonl").read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            if line.endswith(b"\n") and not validator.is_valid(json.loads(line)):
                why = next(validator.iter_errors(json.loads(line))).message
                yield f"{path}/results.jsonl:{number}: {why}"


@pytest.fixture(autouse=True, scope="session")
def own_state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tests, and the processes that they start, out of the user's own state folder, home and temporary files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("tmp")))
        patch.setattr(tempfile, "tempdir", None)
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield

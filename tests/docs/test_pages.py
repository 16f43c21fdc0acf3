"""The pages are true: generated parts are current, examples and commands run, links and paths exist."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import runner
from runner import errors
from runner.cli.main import COMMANDS, load_command
from runner.core.lifecycle import State
from runner.core.model import FailureClass
from runner.core.stop import Stop, StopReason, exit_code
from runner.simulator.scenario_reader import load_scenario
from tests.docs.sections import PAGES, README, ROOT, SECTIONS, error_tree, with_sections

TEXTS = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}
FRONT_PAGE = README.read_text(encoding="utf-8")
COMMAND_PAGE = TEXTS["runner/cli/README.md"]


def blocks(language: str) -> list[Any]:
    """Return every block of code in a language, on any page."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.DOTALL | re.MULTILINE)
    return [
        pytest.param(block, id=f"{name}-{number}")
        for name, text in TEXTS.items()
        for number, block in enumerate(pattern.findall(text), 1)
    ]


@pytest.mark.parametrize("name", PAGES)
def test_generated_sections_are_current(name: str) -> None:
    """What follows from the code is as the code has it now; python -m tests.docs.sections updates it."""
    assert with_sections(TEXTS[name]) == TEXTS[name]


@pytest.mark.parametrize("name", SECTIONS)
def test_each_generated_section_is_on_one_page(name: str) -> None:
    """No generated section is missing, in two places, or empty."""
    assert 1 == sum(text.count(f"<!-- {name} -->\n") for text in TEXTS.values())
    assert 1 == sum(text.count(f"<!-- end of {name} -->") for text in TEXTS.values())
    assert len(list(SECTIONS[name]())) > 3


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command: str) -> None:
    """Each command has a section under the name that a person types."""
    assert f"### `runner {command}" in COMMAND_PAGE


@pytest.mark.parametrize("cls", FailureClass)
def test_every_failure_class_is_documented(cls: FailureClass) -> None:
    """Each failure class has a row with what to do."""
    assert f"| `{cls}` |" in COMMAND_PAGE


def test_every_exit_code_is_documented() -> None:
    """Each code that a run can end with has a row."""
    codes = {exit_code([Stop(reason, "")], {State.PENDING: 1}) for reason in StopReason}
    codes |= {exit_code([], {state: 1}) for state in State} | {2, 5}
    section = FRONT_PAGE.split("\n## Exit codes\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([\d, ]+) \|", section, re.MULTILINE)

    assert codes == {int(code) for row in rows for code in row.split(",")}


def test_the_tree_of_errors_has_every_class() -> None:
    """The docstring of `runner.errors` shows all errors, each after the one that it is a kind of, and no others."""
    drawn = re.findall(r"^(?:[├└│─ ]+)?([A-Z]\w+)  ", errors.__doc__ or "", re.MULTILINE)
    assert [error.__name__ for error in error_tree(errors.RunnerError)] == drawn


def test_every_package_is_in_the_architecture() -> None:
    """Each package has a row that tells what is in it."""
    packages = {f"runner/{path.parent.name}/" for path in (ROOT / "runner").glob("*/__init__.py")}

    assert packages == set(re.findall(r"^\| `(runner/\w+/)` \|", TEXTS["runner/README.md"], re.MULTILINE))


def make_clone(folder: Path) -> None:
    """Lay out a folder like a fresh clone, as far as a run sees it."""
    shutil.copytree(ROOT / "manifests", folder / "manifests")
    (folder / ".git").mkdir()
    (folder / "output").mkdir()


@pytest.mark.parametrize("text", [block for block in blocks("yaml") if "simulator" not in str(block.id)])
def test_every_manifest_of_a_page_validates(text: str, tmp_path: Path) -> None:
    """Each manifest that a page shows is a valid one."""
    (tmp_path / "shown.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "prompts.csv").write_text("id,name,prompt,split,seed,seconds\na,a,A kitten,test,,5\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "rows.jsonl").write_text('{"id": "b", "prompt": "A cat", "split": "train"}')

    done = subprocess.run(
        [sys.executable, "-m", "runner", "validate", str(tmp_path / "shown.yaml")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stdout)


@pytest.mark.parametrize("text", [block for block in blocks("yaml") if "simulator" in str(block.id)])
def test_every_scenario_of_a_page_is_valid(text: str, tmp_path: Path) -> None:
    """Each scenario that the page about scenarios shows can be read."""
    (tmp_path / "shown.yaml").write_text(text, encoding="utf-8")

    load_scenario(tmp_path / "shown.yaml")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a shipped manifest against the simulator, in a folder that has the other manifests too."""
    folder = tmp_path_factory.mktemp("run")
    make_clone(folder)
    options = runner.RunOptions(simulate=True)
    assert runner.run(ROOT / "manifests" / "seedance-1.yaml", output=folder, options=options).exit_code == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("code", blocks("python"))
def test_every_python_example_runs(code: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each example runs; what loads the results gets one row per job."""
    pytest.importorskip(code.split()[1])
    monkeypatch.chdir(run_dir)
    names: dict[str, Any] = {}

    exec(code, names)

    assert len(names.get("loaded", [1])) == 1


def mentioned_commands() -> Iterator[Any]:
    """Find every command line of ours on the pages: in console blocks and in the text."""
    for name, text in TEXTS.items():
        consoles = "\n".join(re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
        lines = re.findall(r"^\$ .*?((?:runner|python -m) .*)", consoles, re.MULTILINE)
        prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
        lines += re.findall(r"`((?:runner|python -m) [^`]+)`", prose)
        yield from (pytest.param(line, id=f"{name}-{line[:60]}") for line in dict.fromkeys(lines))


@pytest.mark.parametrize("line", list(mentioned_commands()))
def test_every_mentioned_command_exists(line: str) -> None:
    """Each command that a page tells people to type exists, with the options that it is given."""
    program, *words = shlex.split(line, comments=True)
    if program == "python":
        assert importlib.util.find_spec(words[1]) is not None
        return
    name = words[0]
    if name.startswith("-"):
        return
    command = load_command(name)
    known = {
        option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]
    }

    assert isinstance(command, click.Command)
    assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    """No link into the repository is dead, neither the file nor the heading."""
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)", TEXTS[name]):
        path = (PAGES[name].parent / target) if target else PAGES[name]
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {
                re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings
            }


@pytest.mark.parametrize("name", PAGES)
def test_every_path_exists(name: str) -> None:
    """Each file or folder of ours that a page names is there."""
    paths = set(re.findall(r"`((?:runner|schemas|manifests|tests)/[\w./-]*)`", TEXTS[name]))
    paths |= set(re.findall(r"\brunner/[\w/]+\.py\b", TEXTS[name]))

    assert [] == sorted(path for path in paths if not (ROOT / path).exists())

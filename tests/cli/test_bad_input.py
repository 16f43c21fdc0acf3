"""Every kind of bad input: `validate` and `run` print the problem with its position, and nothing is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.simulator.server import Simulator
from tests.cli.command import runner

GOOD = "  - {id: good, request: {model: seedance-1-0-pro-250528, prompt: A kitten}}\n"
HEAD = "version: 1\njobs:\n"
REQUEST = "request: {model: seedance-1-0-pro-250528, prompt: x}"
BOMB = (
    "version: 1\nvars:\n  a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(
        f"  {b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + f"jobs:\n{GOOD}"
)

BAD: dict[str, tuple[str | bytes, str, str]] = {
    "not YAML": (f"{HEAD}  - {{id: a, request: [}}\n", "m.yaml:3:", "expected"),
    "not UTF-8": (b"version: 1\nname: caf\xe9\njobs: []\n", "m.yaml:2:", "UTF-8"),
    "empty": ("", "m.yaml: ", "the file is empty"),
    "duplicate key": (f"{HEAD}  - {{id: a, id: b, {REQUEST}}}\n", "m.yaml:3:13: ", "id"),
    "tag": (f"{HEAD}  - {{id: !!python/name:os.system a, {REQUEST}}}\n", "m.yaml:3:10: ", "tag"),
    "alias bomb": (BOMB, "m.yaml:", "alias"),
    "depth": (f"{HEAD}  - {{id: a, metadata: {'[' * 200}{']' * 200}, {REQUEST}}}\n", "m.yaml:3:", "deep"),
    "unknown key": (f"{HEAD}  - {{id: a, metadat: {{}}, {REQUEST}}}\n", "m.yaml:3:13: ", "did you mean 'metadata'?"),
    "wrong type": (f"version: 1\nlimits: {{in_flight: many}}\njobs:\n{GOOD}", "m.yaml:2:21: ", "a whole number"),
    "missing field": (f"{HEAD}  - {{id: a, request: {{model: seedance-1-0-pro-250528}}}}\n", "m.yaml:3:22: ", "missing key 'prompt'"),
    "unknown model": (f"{HEAD}  - {{id: a, request: {{model: wan2.7-i2w}}}}\n", "m.yaml:3:30: ", "did you mean 'wan2.7-i2v'"),
    "unknown placeholder": (f"{HEAD}  - {{id: 'a-${{sede}}', matrix: {{seed: [1]}}, {REQUEST}}}\n", "m.yaml:3:10: ", "seed"),
    "missing row file": (f"{HEAD}  - {{id: a, from: rows.csv, {REQUEST}}}\n", "m.yaml:3:19: ", "rows.csv"),
    "ragged row": (f"{HEAD}  - {{id: '${{name}}', from: ragged.csv, {REQUEST}}}\n", "ragged.csv:3: ", "cell"),
    "duplicate id": (f"{HEAD}{GOOD}  - {{id: good, {REQUEST}}}\n", "m.yaml:4:10: ", "the job at m.yaml:3:5"),
    "bad rate": (f"version: 1\nlimits: {{submit: 60}}\njobs:\n{GOOD}", "m.yaml:2:18: ", "60/min"),
    "bad duration": (f"version: 1\npoll: {{timeout: 1 hour}}\njobs:\n{GOOD}", "m.yaml:2:17: ", "1.5h"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gateway: Simulator) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POWERTOKENS_API_KEY", "sk-good-key")
    monkeypatch.setenv("POWERTOKENS_BASE_URL", gateway.base_url)
    Path("ragged.csv").write_text("name,prompt\na,one\nb\n")


def _write(content: str | bytes) -> Path:
    path = Path("m.yaml")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("kind", BAD)
def test_validate_prints_the_problem_and_its_place(kind: str) -> None:
    """One line for the one problem, with its position first, and exit code 2."""
    content, position, part = BAD[kind]

    result = runner("validate", _write(content))

    assert 2 == result.exit_code
    assert [line for line in result.stdout.splitlines() if line.startswith(position) and part in line], (
        result.stdout
    )
    assert 1 == len(result.stdout.splitlines()), result.stdout


@pytest.mark.parametrize("kind", BAD)
def test_run_refuses_it_and_sends_nothing(kind: str, gateway: Simulator) -> None:
    """`run` prints the same line, and sends no valid job either."""
    content, position, part = BAD[kind]

    result = runner("run", _write(content), "-o", "out")

    assert (2, []) == (result.exit_code, list(gateway.ledger.accepted))
    assert [line for line in result.stderr.splitlines() if position in line and part in line], result.stderr
    assert "Traceback" not in result.stderr


def test_several_problems_are_found_in_one_pass() -> None:
    """All problems are printed at once, in the order of the file."""
    jobs = [BAD[kind][0] for kind in ("unknown key", "missing field", "unknown model")]
    path = _write(
        HEAD
        + "".join(str(text).removeprefix(HEAD).replace("id: a", f"id: j{n}") for n, text in enumerate(jobs))
    )

    assert [3, 4, 5] == [int(line.split(":")[1]) for line in runner("validate", path).stdout.splitlines()]


def test_an_unreadable_row_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder given as a row file is an error at the key that names it."""
    Path("rows.csv").mkdir()

    result = runner("validate", _write(BAD["missing row file"][0]))

    assert 2 == result.exit_code
    assert result.stdout.startswith("m.yaml:3:19: ")
    assert "rows.csv" in result.stdout


def test_the_file_to_correct() -> None:
    """It is the one with the errors, such as a table, and the one to check is the manifest."""
    Path("rows.csv").write_text("name,seed\na,many\n")
    path = _write(f"{HEAD}  - {{id: '${{name}}', from: rows.csv, {REQUEST[:-1]}, seed: '${{seed}}'}}}}\n")

    result = runner("run", path, "--simulate")

    assert 2 == result.exit_code
    assert "  hint: correct rows.csv, then check it: runner validate m.yaml\n" in result.stderr


def test_an_unwritable_output(gateway: Simulator) -> None:
    """A path through a file can't be a run directory, which is found before anything is sent."""
    Path("file").touch()

    result = runner("run", _write(HEAD + GOOD), "-o", "file/out")

    assert (2, []) == (result.exit_code, list(gateway.ledger.accepted))
    assert "file/out can't be written" in result.stderr


def test_no_key(gateway: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable; no directory is created and no job is read."""
    monkeypatch.delenv("POWERTOKENS_API_KEY")

    result = runner("run", _write(HEAD + GOOD), "-o", "out")

    assert (2, []) == (result.exit_code, list(gateway.ledger.accepted))
    assert "error[no-key]: no API key is set in POWERTOKENS_API_KEY" in result.stderr
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "command",
    [("status", "{}"), ("resume", "{}"), ("validate", "{}"), ("plan", "m.yaml", "-o", "{}")]
    + [("run", "m.yaml", "-o", "{}", *options) for options in ((), ("--simulate",))],
    ids=" ".join,
)
def test_path_that_nobody_can_look_at_is_no_bug(command: tuple[str, ...]) -> None:
    """A name that is too long for the file system stands for all that the system refuses, such as a private folder."""
    _write(HEAD + GOOD)

    refused = runner(*(word.format("x" * 300) for word in command))

    assert 2 == refused.exit_code
    assert "xxx" in refused.stderr
    assert "can't be" in refused.stderr
    assert "hint: " in refused.stderr

"""Where keys are read from, which values are errors, and that none is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.errors import CredentialsMissing, RunnerError, UsageError
from runner.gateway.credentials import Environment, KeySet, fingerprint, parse_env, read_keys, with_env_file

NAME = "POWERTOKENS_API_KEY"


def secrets(found: KeySet) -> list[str]:
    return [key.secret for key in found.keys]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({NAME: " sk-a\n"}, ["sk-a"]),
        ({f"{NAME}S": "sk-a, sk-b,,sk-a,"}, ["sk-a", "sk-b"]),
        ({NAME: "sk-a", f"{NAME}S": "sk-b\nsk-a"}, ["sk-a", "sk-b"]),
        ({NAME: "", f"{NAME}S": "sk-b"}, ["sk-b"]),
    ],
)
def test_default_variables(environ: dict[str, str], expected: list[str]) -> None:
    """A key, or a pool of keys, each once and in order."""
    found = read_keys([NAME], environ)

    assert expected == secrets(found)
    assert () == found.unset


def test_named_variables() -> None:
    """A manifest that names its variables gets these and no others, and which of them are empty."""
    found = read_keys(["A", "B", "C"], {"A": "sk-a", "C": "sk-c", NAME: "sk-other"})

    assert ["sk-a", "sk-c"] == secrets(found)
    assert ("B",) == found.unset


def test_key_in_a_file(tmp_path: Path) -> None:
    """NAME_FILE names a file with the key, as with container secrets; the variable itself has precedence."""
    file = tmp_path / "key"
    file.write_text("\ufeffsk-a\r\nsk-b\r\n", encoding="utf-8")

    assert ["sk-a", "sk-b"] == secrets(read_keys([NAME], {f"{NAME}_FILE": f" {file} "}))
    assert ["sk-c"] == secrets(read_keys([NAME], {f"{NAME}_FILE": str(file), NAME: "sk-c"}))


def test_path_of_a_key_in_an_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path is relative to the file that holds it, wherever the command is typed."""
    (tmp_path / ".env").write_text(f"{NAME}_FILE=secrets/key\n")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("sk-a")
    monkeypatch.chdir("/")

    assert ["sk-a"] == secrets(read_keys([NAME], with_env_file({}, tmp_path / ".env")))


def test_no_key() -> None:
    """Without any key, the message names the variables and the hint says what to set."""
    with pytest.raises(CredentialsMissing) as caught:
        read_keys([NAME], {NAME: " , "})

    assert f"no API key is set in {NAME} or {NAME}S" == str(caught.value)
    assert caught.value.hint is not None
    assert f"export {NAME}=" in caught.value.hint


@pytest.mark.parametrize(
    "value",
    ["Bearer sk-hidden", "'sk-hidden'", '"sk-hidden"', "sk-hidden\x00", "sk-hidden\u200b", "sk-hidden…"],
)
def test_values_that_can_not_be_a_key(value: str) -> None:
    """A value that no header can carry is an error before anything is sent, and is not repeated."""
    with pytest.raises(CredentialsMissing, match=NAME) as caught:
        read_keys([NAME], {NAME: value})

    assert "hidden" not in f"{caught.value!r} {caught.value.hint}"


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00s", b"x" * 100_000])
def test_file_without_a_key(tmp_path: Path, content: bytes | None) -> None:
    """A file that is absent, binary or huge is an error that names the variable."""
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(CredentialsMissing, match=f"{NAME}_FILE"):
        read_keys([NAME], {f"{NAME}_FILE": str(file)})


def test_key_is_not_shown() -> None:
    """A key has a public name, and its repr shows nothing else."""
    found = read_keys([NAME], {NAME: "sk-hidden"})

    assert "hidden" not in f"{found!r} {found}"
    assert fingerprint("sk-hidden") in repr(found)


def test_env_file() -> None:
    """Quotes, comments and ``export`` are understood; nothing in a value is replaced."""
    text = """
        # a comment
        export A=sk-1   # behind
        B = "two words # and more"  # behind
        C='$HOME/${X}'
        D=a#b=c
        E=
        F= # nothing
        G=it's
        H="of two
        lines"
    """

    assert {
        "A": "sk-1",
        "B": "two words # and more",
        "C": "$HOME/${X}",
        "D": "a#b=c",
        "E": "",
        "F": "",
        "G": "it's",
        "H": "of two\n        lines",
    } == parse_env(text, ".env")


@pytest.mark.parametrize(
    "line", ["sk-hidden", "=sk-hidden", "A='sk-hidden", "A='sk-hidden' b", "1A=sk-hidden"]
)
def test_broken_env_line(line: str) -> None:
    """Any other line is named by its number, and not repeated."""
    with pytest.raises(UsageError) as caught:
        parse_env(f"A='of two\nlines'\n\n# comment\n \n {line}\nB=1\n", ".env")

    assert str(caught.value).startswith(".env:6: ")
    assert "hidden" not in f"{caught.value!r} {caught.value.hint}"


def test_environment_wins(tmp_path: Path) -> None:
    """What is set already stays; what is empty or unset is read from the file."""
    file = tmp_path / ".env"
    file.write_text("A=file\nB=file\nC=file\n")

    merged = with_env_file({"A": "set", "B": "", "D": "set"}, file)

    assert {"A": "set", "B": "file", "C": "file", "D": "set"} == merged


@pytest.mark.parametrize("content", [None, b"A=\xff", b"A=1\n" * 50_000])
def test_unreadable_env_file(tmp_path: Path, content: bytes | None) -> None:
    """A file that can't be read as variables is an error, not an empty environment."""
    file = tmp_path / ".env"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(RunnerError):
        with_env_file({}, file)


def test_file_that_no_option_names(tmp_path: Path) -> None:
    """A broken line matters only if the key is found nowhere, and is then named without its text."""
    file = tmp_path / ".env"
    file.write_text("A=1\nthis is not a variable\nB=2\n")

    environ = with_env_file({"C": "3"}, file, is_named=False)

    assert {"A": "1", "B": "2", "C": "3"} == environ
    assert ["1"] == [key.secret for key in read_keys(["A"], environ).keys]
    with pytest.raises(CredentialsMissing) as caught:
        read_keys(["KEY"], environ)
    assert f"no API key is set in KEY; {file}:2: not a NAME=VALUE line" == caught.value.message


@pytest.mark.parametrize("content", [b"\xff", b"A=1\n" * 20_000])
def test_unreadable_file_that_no_option_names(tmp_path: Path, content: bytes) -> None:
    """So does a file that can't be read as text."""
    (tmp_path / ".env").write_bytes(content)

    environ = with_env_file({"C": "3"}, tmp_path / ".env", is_named=False)

    assert isinstance(environ, Environment)
    assert {"C": "3"} == environ
    assert environ.trouble is not None
    assert ".env" in environ.trouble

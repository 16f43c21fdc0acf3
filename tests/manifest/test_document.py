"""The stream of entries: positions, memory, and files that are not manifests."""

from __future__ import annotations

import io
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.model import Json
from runner.core.problem import Finding, Position
from runner.errors import ManifestError
from runner.manifest import yaml_parser
from runner.manifest.document import Document, open_document, scan_lines
from runner.manifest.yaml_parser import PythonParser
from tests.manifest.helpers import fail, problems_of, read_document

TEXT = """\
version: 1
vars:
  base: &base {model: wan2.7-i2v, media: [{url: a}]}
jobs:
  - id: sky
    request:
      media:
        - {type: first_frame, url: 小猫}
      'seconds': 5
  - request: {<<: *base, seed: 1}
    metadata: *base
"""


def opened(path: Path, text: str | bytes) -> Document:
    """Write a manifest without problems in its header, and open it."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_document(path, fail)


@pytest.mark.parametrize(
    ("index", "path", "value", "key"),
    [
        (0, (), (5, 5), (5, 5)),
        (0, ("id",), (5, 9), (5, 5)),
        (0, ("request", "media", 0, "url"), (8, 36), (8, 31)),
        (0, ("request", "seconds"), (9, 18), (9, 7)),
        (0, ("request", "media", 0), (8, 11), (8, 11)),
        (0, ("request", "media", 7, "url"), (8, 9), (7, 7)),
        (0, ("request", "prompt"), (7, 7), (6, 5)),
        (1, ("request", "seed"), (10, 32), (10, 26)),
        (1, ("request", "media", 0, "url"), (10, 19), (10, 15)),
        (1, ("metadata", "model"), (11, 15), (11, 5)),
    ],
)
def test_positions(
    tmp_path: Path, index: int, path: tuple[str | int, ...], value: tuple[int, int], key: tuple[int, int]
) -> None:
    """Values and keys have the places where they are written; what is not written, that of its parent."""
    file = tmp_path / "a.yaml"
    entry = list(opened(file, TEXT).entries(fail))[index]

    assert entry.position_of(Finding(path, "")) == Position(str(file), *value)
    assert entry.position_of(Finding(path, "unknown key")) == Position(str(file), *key)


def test_positions_in_the_header(tmp_path: Path) -> None:
    """The header has places too, including that of the jobs."""
    file = tmp_path / "a.yaml"
    header = opened(file, TEXT).header

    assert header.position_of(Finding(("vars", "base"), "")) == Position(str(file), 3, 9)
    assert header.position_of(Finding(("jobs",), "unknown key")) == Position(str(file), 4, 1)


def test_the_stream_can_be_read_again(tmp_path: Path) -> None:
    """The manifest is read once to check it and once to run it."""
    document = opened(tmp_path / "a.yaml", TEXT)

    assert [entry.value for entry in document.entries(fail)] == [
        entry.value for entry in document.entries(fail)
    ]


@pytest.mark.slow
def test_entries_are_not_kept(tmp_path: Path) -> None:
    """A manifest of any length needs the memory of one entry."""
    rows = "".join(f"  - {{id: job-{number}, request: {{seed: {number}}}}}\n" for number in range(5000))
    document = opened(tmp_path / "a.yaml", f"version: 1\njobs:\n{rows}")

    tracemalloc.start()
    count = 0
    for entry in document.entries(fail):
        assert entry.index == count
        count += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert count == 5000
    assert peak < 1_500_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\njobs:\n  - x\n", True),
        ("a: 1\njobs:\n- x\n# name: b\n\n- y", True),
        ("a: 1\n'jobs':\n- x\n", True),
        ("a: 1\r\njobs:\r\n  - x\r\n", True),
        ("a: 1\njobs:\n  - x\nname: b\n", False),
        ("a: 1\njobs:\n  - x\n-name: b\n", False),
        ("a: 1\njobs:\n  - x\n...\n", False),
        ("a: 1\njobs:\n  - 'x\njobs: y'\n", False),
        ("a: 'x\njobs: y'\njobs:\n  - z\n", False),
        ("a: 1\njobs:\n  - x\rname: b\n", False),
        ("a: 1\njobs:\n  - x\u0085name: b\n", False),
        ("a: 1\njobs:\n  - x\u2028name: b\n", False),
        ("jobs:\n  - x\n", True),
        ("\ufeffjobs:\n  - x\n", False),
        (f"jobs:\n  - '{'x' * 2**20}'\n  - y\nname: b\n", False),
        ("a: 1\n", False),
    ],
)
def test_whether_the_jobs_come_last(text: str, expected: bool) -> None:
    """Keys after the jobs are never missed, whatever ends a line."""
    assert scan_lines(io.BytesIO(text.encode()))[1] is expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a.yaml: the file is empty"),
        (b"\xff\xfev\x00:\x00", "a.yaml: not UTF-8: it begins as UTF-16 does; save it as UTF-8"),
        (b"v\x00e\x00", "a.yaml:1:2: the character U+0000 is not allowed in YAML; remove it"),
        (b"version: 1\nname: caf\xe9\n", "a.yaml:2:10: not UTF-8: byte 0xE9 at offset 20; save it as UTF-8"),
        ("name: 小\n".encode()[:-2], "a.yaml:1:7: not UTF-8: byte 0xE5 at offset 6; save it as UTF-8"),
        (b'name: "\\ud83d\\ude00"\n', "a.yaml:1:"),
        (b"%YAML 9.0\n--- {}\n", "a.yaml:1:1: not readable as YAML"),
    ],
)
@pytest.mark.parametrize("parser", [yaml_parser.DefaultParser, PythonParser], ids=["fastest", "python"])
def test_invalid_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parser: Callable[..., object], data: bytes, message: str
) -> None:
    """An unreadable file has one message, with its place, whichever parser is installed."""
    monkeypatch.setattr(yaml_parser, "DefaultParser", parser)
    path = tmp_path / "a.yaml"
    path.write_bytes(data)

    with pytest.raises(ManifestError) as caught:
        open_document(path, fail)

    assert len(caught.value.problems) == 1
    assert str(caught.value.problems[0]).replace(f"{tmp_path}/", "").startswith(message)


def test_bad_bytes_far_into_a_file(tmp_path: Path) -> None:
    """The place of an invalid byte is right beyond the first block of the file, and within a character."""
    line = "# " + "小" * 99 + "\n"
    path = tmp_path / "a.yaml"
    path.write_bytes(b"version: 1\njobs:\n  - id: a\n" + (line * 4000).encode() + b"  - id: \xff\n")

    assert problems_of(path) == ["a.yaml:4004:9: not UTF-8: byte 0xFF at offset 1200035; save it as UTF-8"]


NOT_A_FILE = (
    "a manifest must be a regular file: it is read more than once, and its folder decides where the run is; "
    "write it to a file first"
)


def test_not_a_regular_file(tmp_path: Path) -> None:
    """A directory, a missing file, and a pipe or standard input have messages of their own."""
    os.mkfifo(tmp_path / "pipe")
    expected = {
        "": "this is a directory, not a manifest",
        "missing.yaml": "can't be read: No such file or directory",
        "pipe": NOT_A_FILE,
        "-": NOT_A_FILE,
        "/dev/fd/0": NOT_A_FILE,
    }

    for name, message in expected.items():
        with pytest.raises(ManifestError) as caught:
            open_document(tmp_path / name, fail)
        assert [problem.message for problem in caught.value.problems] == [message]


@pytest.mark.parametrize("parser", [yaml_parser.DefaultParser, PythonParser], ids=["fastest", "python"])
@pytest.mark.parametrize(
    ("before", "opening", "column"),
    [
        ("  - request: ", "[", 14 + 61),
        ("  - request: ", "{[", 14 + 61),
        ("  - request: ", "{? ", 14 + 61 * 3),
        ("  - request: ", "[a: ", 14 + 30 * 4 + 1),
        ("  - request: ", "!!seq [", 14 + 61 * 7),
        ("  - request: ", "&a [", 14 + 61 * 4),
        ("  - request: {? ", "[", 17 + 60),
        ("  - {'[[[[\u5c0f': ", "[", 15 + 61),
        ("  ", "- ", 3 + 63 * 2),
        ("  - ", "? ", 5 + 62 * 2),
        ("  - ", "? - ", 5 + 62 * 2),
    ],
)
def test_too_many_levels(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parser: Callable[..., object],
    before: str,
    opening: str,
    column: int,
) -> None:
    """
    Thousands of levels are an error at the place of the 65th, without a recursion error.

    This holds for every parser: libyaml 0.2.6 and later has a limit of its own, which it may reach first.
    """
    monkeypatch.setattr(yaml_parser, "DefaultParser", parser)
    path = tmp_path / "a.yaml"
    path.write_text("\ufeffversion: 1\njobs:\n" + before + opening * 1_500)

    assert problems_of(path) == [f"a.yaml:3:{column}: nested more than 64 levels deep"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("version: 1\nvars: " + "[" * 1_500, "2:70"),
        ("version: 1\njobs: {a: " + "[" * 1_500, "2:73"),
        ("version: 1\n" + "".join(f"{' ' * level}a:\n" for level in range(2_000)), "66:65"),
    ],
)
def test_too_many_levels_outside_the_jobs(tmp_path: Path, text: str, place: str) -> None:
    """Levels are counted in the header as in the jobs."""
    path = tmp_path / "a.yaml"
    path.write_text(text)

    assert f"a.yaml:{place}: nested more than 64 levels deep" in problems_of(path)


def test_too_many_levels_in_a_key(tmp_path: Path) -> None:
    """An invalid key is reported as such or as too deep, but not in the words of the parser's own limit."""
    path = tmp_path / "a.yaml"
    path.write_text("version: 1\n" + "[" * 1_500)

    (problem,) = problems_of(path)
    assert problem.startswith("a.yaml:2:")
    assert "maximum" not in problem


@pytest.mark.parametrize(("levels", "is_too_deep"), [(61, False), (62, True)])
def test_a_syntax_error_beyond_the_depth_limit(tmp_path: Path, levels: int, is_too_deep: bool) -> None:
    """Of a level that is too deep and a syntax error, the first is reported."""
    path = tmp_path / "a.yaml"
    path.write_text("version: 1\njobs:\n  - request: " + "[" * levels + "@")

    assert len(problems_of(path)) == 1
    assert ("nested more than 64" in problems_of(path)[0]) is is_too_deep


def test_a_line_of_ten_megabytes(tmp_path: Path) -> None:
    """An image as a data URI may be a line of any length."""
    image = "data:image/png;base64," + "QUJD" * 2_500_000
    document = opened(tmp_path / "a.yaml", f"version: 1\njobs:\n  - request: {{image: '{image}', seed: 1}}\n")

    entries = list(document.entries(fail))

    assert entries[0].value["request"]["image"] == image
    assert (
        entries[0].position_of(Finding(("request", "seed"), "")).column
        == len("  - request: {image: '', seed: ") + len(image) + 1
    )


def test_a_syntax_error_after_valid_jobs(tmp_path: Path) -> None:
    """The jobs before a syntax error are checked, and the error is reported once."""
    path = tmp_path / "a.yaml"
    path.write_text("version: 1\njobs:\n  - id: a\n  - id: [\n")

    read, problems = read_document(path)

    assert read is not None
    assert [entry.value["id"] for entry in read[1]] == ["a"]
    assert len(problems) == 1


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=19),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), inner, max_size=3)
    ),
    max_leaves=10,
)


@pytest.mark.slow
@settings(max_examples=100)
@given(value=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), JSON, max_size=4))
@pytest.mark.parametrize("form", ["json", "yaml block", "yaml flow"])
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, form: str, value: dict[str, Json]) -> None:
    """Any JSON value is read as it was written."""
    manifest = {"version": 1, "jobs": [{"metadata": value}]}
    if form == "json":
        text = json.dumps(manifest, ensure_ascii=False).replace("\x7f", "\\u007f")
        text = "".join(char if char.isprintable() or char == " " else f"\\U{ord(char):08x}" for char in text)
    else:
        text = yaml.dump(
            manifest, Dumper=QuotingDumper, default_flow_style=form == "yaml flow", allow_unicode=True
        )
    path = tmp_path_factory.getbasetemp() / "round.yaml"

    assert [entry.value for entry in opened(path, text).entries(fail)] == manifest["jobs"]


class QuotingDumper(yaml.SafeDumper):
    """Writes all text in double quotes: PyYAML's plain scalars follow other rules."""


QuotingDumper.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)
QuotingDumper.add_representer(
    float, lambda dumper, number: dumper.represent_scalar("tag:yaml.org,2002:float", json.dumps(number))
)


@settings(max_examples=150)
@given(data=st.binary(max_size=60) | st.text(alphabet="ab:-[]{}&*!|>'\"#%@`\n\t ,?<~=\\$0.", max_size=60))
@pytest.mark.parametrize("start", [b"", b"version: 1\njobs:\n  - id: a\n    request: "])
def test_random_bytes(tmp_path_factory: pytest.TempPathFactory, start: bytes, data: bytes | str) -> None:
    """Any bytes are read or reported, without a traceback."""
    path = tmp_path_factory.getbasetemp() / "random.yaml"
    path.write_bytes(start + (data.encode() if isinstance(data, str) else data))

    read_document(path)


@settings(max_examples=60)
@given(data=st.text(alphabet="ab:-[]{}&*!|>'\"#\n ,?<~=\\$0.1", max_size=60))
def test_both_parsers_agree(tmp_path_factory: pytest.TempPathFactory, data: str) -> None:
    """What both parsers accept has the same values."""
    path = tmp_path_factory.getbasetemp() / "both.yaml"
    path.write_text("version: 1\njobs:\n  - metadata:\n      a: " + data)

    fastest = read_document(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml_parser, "DefaultParser", PythonParser)
        python = read_document(path)

    if fastest[0] is not None and python[0] is not None and not fastest[1] and not python[1]:
        assert [entry.value for entry in fastest[0][1]] == [entry.value for entry in python[0][1]]

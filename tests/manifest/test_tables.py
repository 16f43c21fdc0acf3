"""Tables as people have them: separators, quotes, encodings, empty cells, and several files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.core.model import Json
from runner.manifest.row_files import open_row_files
from runner.manifest.row_readers import RowFileError
from tests.manifest.helpers import SEEDANCE, read_jobs

REQUEST = f"request: {{model: {SEEDANCE}, prompt: '${{prompt}}', seconds: '${{seconds}}'}}"


def rows_of(path: Path, **options: Json) -> list[tuple[int, dict[str, Json]]]:
    """Read the rows of a file that has no invalid row."""
    errors: list[object] = []
    rows = list(
        open_row_files(path.parent, path.name, **options).read(lambda _: None, lambda *e: errors.append(e))
    )
    assert not errors
    return rows


@pytest.mark.parametrize(
    ("name", "content", "csv"),
    [
        ("comma.csv", "id,prompt\na1,A kitten\n", {}),
        ("semicolon.csv", "id;prompt\na1;A kitten\n", {}),
        ("tab.csv", "id\tprompt\na1\tA kitten\n", {}),
        ("pipe.csv", "id|prompt\na1|A kitten\n", {}),
        ("said.csv", "id~prompt\na1~A kitten\n", {"delimiter": "~"}),
        ("said_twice.csv", "id,a;prompt,b\na1;A kitten\n", {"delimiter": ";"}),
        ("excel.csv", "sep=;\r\nid;prompt\r\na1;A kitten\r\n", {}),
        ("excel_quoted.csv", '"sep=,"\nid,prompt\na1,A kitten\n', {}),
        ("comma.tsv", "id,prompt\na1,A kitten\n", {}),
        ("in_quotes.csv", '"id";"prompt, long, (en)"\na1;A kitten\n', {}),
        ("blank_before_quote.csv", 'id, "prompt"\na1, "A kitten"\n', {}),
        ("apostrophes.csv", "id,prompt\n'a1','A kitten'\n", {"quote": "'"}),
        ("empty_rows.csv", "id,prompt\n,\na1,A kitten\n,\n\n", {}),
        ("trailing.csv", "id,prompt,,\na1,A kitten,,\n", {}),
        ("trailing_in_rows.csv", "id,prompt\na1,A kitten,\n", {}),
        ("comments.csv", "# mine\nid,prompt\n# a0,off\na1,A kitten\n", {}),
        ("bom.csv", "\ufeffid,prompt\na1,A kitten\n", {"encoding": "utf-8"}),
    ],
)
def test_kinds_of_tables(tmp_path: Path, name: str, content: str, csv: dict[str, Json]) -> None:
    """However a table is written, it has the same row."""
    path = tmp_path / name
    path.write_text(content, encoding="utf-8", newline="")

    ((line, row),) = rows_of(path, csv=csv)

    assert content.splitlines()[line - 1].strip(",").endswith(("A kitten", "A kitten'", 'A kitten"'))
    assert ["a1", "A kitten"] == list(row.values())


@pytest.mark.parametrize(
    ("encoding", "csv"),
    [("utf-16", {}), ("utf-8-sig", {}), ("cp1252", {"encoding": "cp1252"}), ("utf-16-le", {"encoding": "UTF-16LE"})],
)  # fmt: skip
def test_encodings(tmp_path: Path, encoding: str, csv: dict[str, Json]) -> None:
    """UTF-16 is found by its byte order mark; another encoding is the one that is named."""
    (tmp_path / "a.csv").write_bytes("p\r\ncafé\r\n".encode(encoding))
    (tmp_path / "a.txt").write_bytes("café\n\n".encode(encoding))

    assert [(2, {"p": "café"})] == rows_of(tmp_path / "a.csv", csv=csv)
    assert [(1, {"line": "café"})] == rows_of(tmp_path / "a.txt", csv=csv)


def test_quotes_in_tsv(tmp_path: Path) -> None:
    """In a .tsv file a quote is text, unless it encloses the whole cell; the manifest may say otherwise."""
    path = tmp_path / "a.tsv"
    path.write_text('a\tb\n"Big" cat\t"unbalanced\n"say ""hi"", cat"\t5"\n')

    assert [
        (2, {"a": '"Big" cat', "b": '"unbalanced'}),
        (3, {"a": 'say "hi", cat', "b": '5"'}),
    ] == rows_of(path)

    path.write_text('a\tb\n"two\nlines"\t"x"\n')
    assert [(2, {"a": "two\nlines", "b": "x"})] == rows_of(path, csv={"quote": '"'})
    assert [(2, {"a": '"x"', "b": "y"})] == _unquoted_rows(path)


def _unquoted_rows(path: Path) -> list[tuple[int, dict[str, Json]]]:
    path.write_text('a\tb\n"x"\ty\n')
    return rows_of(path, csv={"quote": ""})


def test_the_index_of_pandas(tmp_path: Path) -> None:
    """A first column without a name is the index that pandas writes; a warning says so."""
    (tmp_path / "a.csv").write_text(",prompt,seconds\n0,A kitten,5\n1,A cat,5.0\n")

    result = read_jobs(tmp_path, f"- {{id: '${{index}}', from: a.csv, {REQUEST}}}")

    assert ["0", "1"] == result.ids
    assert ["5", "5"] == [request["seconds"] for request in result.requests]
    assert [
        "a.csv:1: warning: jobs[0]: the first column has no name, as pandas writes its index; it is read as 'index'; "
        "leave it out with to_csv(..., index=False), or give it a name"
    ] == result.problems


def test_empty_cells(tmp_path: Path) -> None:
    """An empty optional cell leaves its field out, and so do the words that the manifest lists."""
    (tmp_path / "a.csv").write_text(
        "prompt,seconds,seed,size\nA kitten, 5 ,7,720p\nA cat,5,,nan\nA dog,,None,\n"
    )
    request = f"{{model: {SEEDANCE}, prompt: '${{prompt}}', seconds: '${{seconds}}', seed: '${{seed}}', size: '${{size}}'}}"

    result = read_jobs(tmp_path, f"- {{from: a.csv, csv: {{empty: [nan, None]}}, request: {request}}}")

    assert [] == result.problems
    assert [
        {"model": SEEDANCE, "prompt": "A kitten", "seconds": "5", "seed": 7, "size": "720p"},
        {"model": SEEDANCE, "prompt": "A cat", "seconds": "5"},
        {"model": SEEDANCE, "prompt": "A dog"},
    ] == result.requests

    problems = read_jobs(tmp_path, f"- {{from: a.csv, request: {request}}}").problems
    hint = "if this word means an empty cell: csv: {empty: [...]} beside from: lists such words"
    assert f"a.csv:4:8: jobs[0]: seed: 'None' is text, not a whole number; {hint}" == problems[1]


@pytest.mark.parametrize(
    ("name", "content", "jobs", "expected"),
    [
        ("a.csv", "id;seconds\na;5\n", f"- {{from: a.csv, {REQUEST}}}", "m.yaml:3:67: jobs[0]: unknown placeholder '${prompt}'; the names are date, id, seconds; a.csv is read with ';' between its columns"),
        ("a.csv", "prompt,seconds\n,5\n", f"- {{from: a.csv, {REQUEST}}}", "a.csv:2:1: jobs[0]: missing key 'prompt' in request"),
        ("a.csv", "prompt,seconds\n  ,5\n", f"- {{from: a.csv, {REQUEST}}}", "a.csv:2:1: jobs[0]: prompt: has only blanks"),
        ("a.csv", 'seconds,prompt\n5,"A\nb"c\n', f"- {{from: a.csv, {REQUEST}}}", "a.csv:2:3: jobs[0]: cell 2 of the row that begins on line 2 can't be read (',' expected after '\"'); look for a quote that is not closed, or not doubled inside a quoted cell; if quotes are part of the text: csv: {quote: ''}"),
        ("a.csv", 'x,seconds,prompt\n"a\nb",99,c\n', f"- {{from: a.csv, {REQUEST}}}", "a.csv:3:4: jobs[0]: seconds: '99' is not allowed for seedance-1-0-pro-250528 (2 to 12)"),
        ("a.jsonl", '{"prompt": "c", "seconds" : 99}\n', f"- {{from: a.jsonl, {REQUEST}}}", "a.jsonl:1:29: jobs[0]: seconds: '99' is not allowed for seedance-1-0-pro-250528 (2 to 12)"),
        ("a.jsonl", '{"prompt": "c", "prompt": "d"}\n', f"- {{from: a.jsonl, {REQUEST}}}", "a.jsonl:1: jobs[0]: the key 'prompt' is there twice; remove one of them"),
        ("a.jsonl", '{"prompt": {"a": 1, "a": 2}}\n', f"- {{from: a.jsonl, {REQUEST}}}", "a.jsonl:1: jobs[0]: the key 'a' is there twice; remove one of them"),
        ("a.csv", "prompt\n", "- {from: 'b*.csv'}", "m.yaml:3:10: jobs[0]: no file matches 'b*.csv'; patterns are relative to the manifest's folder: {folder}"),
        ("a.csv", "prompt\n", "- {from: [a.csv, b.csv]}", "m.yaml:3:10: jobs[0]: 'b.csv' can't be read: No such file or directory; row files are relative to the manifest's folder: b.csv"),
        ("a.csv", "prompt\n", "- {from: a.csv, csv: {encoding: latin-0}}", "m.yaml:3:22: jobs[0]: csv.encoding: 'latin-0' is not an encoding of text; such as utf-8, utf-16, cp1252, gbk or shift_jis"),
        ("a.csv", "prompt\n", "- {from: a.csv, csv: {delimiter: ab}}", "m.yaml:3:34: jobs[0]: csv.delimiter: 2 characters, more than the 1 allowed"),
        ("a.csv", "prompt\n", "- {from: a.csv, sheet: b}", "m.yaml:3:24: jobs[0]: sheet: no file of this entry ends in .xlsx"),
        ("a.jsonl", "{}\n", "- {from: a.jsonl, csv: {quote: ''}}", "m.yaml:3:24: jobs[0]: csv: no file of this entry ends in .csv, .tsv, .txt"),
        ("a.csv", "prompt\n", "- {where: a=b, request: {prompt: a}}", "m.yaml:3:3: jobs[0]: missing key 'from' in the job"),
        ("a.csv", "prompt\n", "- {from: a.csv, where: split=test}", "m.yaml:3:24: jobs[0]: where: no column is named 'split'; the columns are prompt; a.csv is read with ',' between its columns"),
        ("a.csv", "prompt\n", "- {from: a.csv, where: split}", "m.yaml:3:24: jobs[0]: where: 'split' is not a condition: write NAME=VALUE, where VALUE may hold * and ?, or use !=, <, <=, >, >=: split=test, model=wan*, seed>3"),
        ("a.csv", "", f"- {{from: a.csv, where: seconds>3, {REQUEST}}}", "m.yaml:3:10: warning: jobs[0]: 'a.csv' has no rows that meet 'where'; the entry makes no job"),
        ("a.csv", "", f"- {{from: a.csv, {REQUEST}}}", "m.yaml:3:10: warning: jobs[0]: 'a.csv' has no rows; the entry makes no job"),
        ("a.csv", "split\na\n", "- {from: a.csv, where: split=test}", "m.yaml:3:10: warning: jobs[0]: 'a.csv' has no rows that meet 'where'; the entry makes no job"),
    ],
)  # fmt: skip
def test_mistakes(tmp_path: Path, name: str, content: str, jobs: str, expected: str) -> None:
    """Each mistake is one message with its line and column, in the table or in the manifest."""
    (tmp_path / name).write_text(content)

    assert expected.replace("{folder}", str(tmp_path)) in read_jobs(tmp_path, jobs).problems


def test_several_files(tmp_path: Path) -> None:
    """A list and patterns make one table of all files, each of which is read once, and keep their lines."""
    (tmp_path / "a.csv").write_text("id,prompt\na1,A kitten\n")
    (tmp_path / "b.csv").write_text("prompt;seconds;id\nA cat;5;b1\nA dog;x;b2\n")
    (tmp_path / "b.jsonl").write_text('{"id": "j1", "prompt": "A cow"}\n')

    result = read_jobs(
        tmp_path,
        f"- {{id: '${{id}}', from: [b.jsonl, '*.csv', a.csv], request: {{model: {SEEDANCE}, prompt: '${{prompt}}'}}}}",
    )
    assert ["j1", "a1", "b1", "b2"] == result.ids
    assert ["b.jsonl:1", "a.csv:2", "b.csv:2", "b.csv:3"] == [
        f"{Path(job.source.file).name}:{job.source.line}" for job in result.jobs if job.source
    ]

    problems = read_jobs(tmp_path, f"- {{id: '${{id}}', from: ['*.csv'], {REQUEST}}}").problems
    assert [
        "a.csv:2: jobs[0]: the row has no 'seconds', which the job uses; it has id, prompt",
        "b.csv:3:7: jobs[0] \"b2\": seconds: 'x' is not allowed for seedance-1-0-pro-250528 (2 to 12)",
    ] == problems


def test_conditions_on_rows(tmp_path: Path) -> None:
    """Rows that do not meet the conditions make no job, and are not checked."""
    (tmp_path / "a.csv").write_text("id,split,seed\na,test,1\nb,train,2\nc,test,x\nd,test,9\n")
    entry = f"- {{id: '${{id}}', from: a.csv, where: {{}}, request: {{model: {SEEDANCE}, prompt: x, seed: '${{seed}}'}}}}"

    one = read_jobs(tmp_path, entry.replace("{}", "split=tr*"))
    both = read_jobs(tmp_path, entry.replace("{}", "[split=test, seed>1]"))

    assert (["b"], []) == (one.ids, one.problems)
    assert (["d"], []) == (both.ids, both.problems)


def test_arrays(tmp_path: Path) -> None:
    """A JSON array of objects is read item by item, with the line of each; a .json file may be JSON lines too."""
    path = tmp_path / "a.json"
    rows = [{"id": n, "nested": {"a": [1.5, "x\n]"]}, "text": "y" * 300_000} for n in range(9)]
    path.write_text(json.dumps(rows, indent=1))
    lines = [1 + path.read_text().splitlines().index(f'  "id": {n},') - 0 for n in range(9)]

    assert list(zip([line - 1 for line in lines], rows, strict=True)) == rows_of(path)
    for content in ("[]", " [\n]\n"):
        path.write_text(content)
        assert [] == rows_of(path)
    path.write_text('{"id": 1}\n{"id": 2}\n')
    assert [(1, {"id": 1}), (2, {"id": 2})] == rows_of(path)


@pytest.mark.parametrize(
    ("content", "line", "column", "message"),
    [
        ('[{"a": 1},\n {"a" 1}]', 2, 7, "the file is not JSON: Expecting ':' delimiter"),
        ('[{"a": 1}\n {"a": 1}]', 2, 2, "the file is not JSON: Expecting ','"),
        ('[{"a": "x', 1, 8, "the file is not JSON: Unterminated string starting at"),
        ('[{"a": 1}', 1, 10, "the file is not JSON: Expecting ','"),
        ('[{"a": NaN}]', 1, 2, "the line has a number or a character that JSON does not have"),
        ('[{"a": 1, "a": 2}]', 1, 2, "the key 'a' is there twice"),
        ("[{}] x", 1, 6, "the file continues after the end of the array"),
        ('[{"a": ' + "[" * 100_000, 1, 2, "nested more than 64 levels deep"),
    ],
)
def test_broken_arrays(tmp_path: Path, content: str, line: int, column: int, message: str) -> None:
    """An array that is no JSON is an error with its position."""
    path = tmp_path / "a.json"
    path.write_text(content)

    with pytest.raises(RowFileError) as caught:
        rows_of(path)

    assert (line, column, message) == (caught.value.line, caught.value.column, caught.value.message)


def test_batch_lines(tmp_path: Path) -> None:
    """Metadata beside the body is the job's; other keys and a custom_id without a value get a warning."""
    from tests.manifest.helpers import read_manifest

    body = {"model": SEEDANCE, "prompt": "A kitten"}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": body}
    path = tmp_path / "b.jsonl"
    path.write_text(
        json.dumps({**line, "metadata": {"k": "v"}, "priority": 1})
        + "\n"
        + json.dumps({**line, "custom_id": None, "body": {**body, "seed": 1}})
    )

    result = read_manifest(path)

    assert {"k": "v"} == result.jobs[0].metadata
    assert 2 == len(result.jobs)
    assert [
        "b.jsonl:1: warning: jobs[0] \"a\": unknown key 'priority': it is not sent; what belongs to the request is in its body",
        "b.jsonl:2: warning: jobs[1]: custom_id: null names no job; it is named by its request",
    ] == result.problems

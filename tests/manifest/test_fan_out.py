"""The jobs of an entry: defaults, matrix, repetitions, variables and rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.model import Json
from runner.manifest.header import merge
from tests.manifest.helpers import SEEDANCE, read_jobs, read_manifest

LEAVES = st.integers() | st.lists(st.integers(), max_size=2)
SHAPED = st.fixed_dictionaries(
    {},
    optional={"a": LEAVES, "b": LEAVES, "m": st.fixed_dictionaries({}, optional={"c": LEAVES, "d": LEAVES})},
)
ANY = st.recursive(
    st.none() | LEAVES, lambda inner: st.dictionaries(st.sampled_from("abm"), inner, max_size=3), max_leaves=8
)
MAPPINGS = st.dictionaries(st.sampled_from("abm"), ANY, max_size=3)


@given(SHAPED, SHAPED, SHAPED)
def test_merging_is_associative(low: dict[str, Json], middle: dict[str, Json], high: dict[str, Json]) -> None:
    """If a key is a mapping everywhere or nowhere, the order of merging does not matter."""
    assert merge(merge(low, middle), high) == merge(low, merge(middle, high))


@given(MAPPINGS, MAPPINGS)
def test_null_removes(low: dict[str, Json], high: dict[str, Json]) -> None:
    """Nothing is null after a merge, a null removes its key, and neither side is changed."""
    before = repr((low, high))

    merged = merge(merge({}, low), high)

    def has_null(value: Json) -> bool:
        return value is None or (isinstance(value, dict) and any(map(has_null, value.values())))

    assert not has_null(merged)
    assert not {key for key, value in high.items() if value is None} & merged.keys()
    assert before == repr((low, high))


@given(MAPPINGS)
def test_merging_with_nothing(low: dict[str, Json]) -> None:
    """Merging with nothing, or with itself, changes nothing."""
    clean = merge({}, low)

    assert clean == merge(clean, {}) == merge(clean, clean)


def test_precedence(tmp_path: Path) -> None:
    """A job replaces the defaults of its model, which replace those for all; null removes a default."""
    header = f"""\
defaults:
  request: {{model: {SEEDANCE}, size: 480p, watermark: false, seed: 1}}
  models: {{{SEEDANCE}: {{size: 720p, ratio: '16:9'}}}}
  metadata: {{project: kittens, tags: {{a: 1, b: 2}}}}
"""
    jobs = (
        "- {id: a, request: {prompt: x, ratio: '9:16', seed: null}, metadata: {tags: {b: 3}, project: null}}"
    )

    job = read_jobs(tmp_path, jobs, header).jobs[0]

    request = {"model": SEEDANCE, "size": "720p", "watermark": False, "ratio": "9:16", "prompt": "x"}
    assert request == job.request
    assert {"tags": {"a": 1, "b": 3}} == job.metadata


@pytest.mark.parametrize("value", ["null", "'${v}'"])
def test_null_in_a_list_of_metadata_is_data(value: str, tmp_path: Path) -> None:
    """It stays, written so or filled in; outside lists, and in the lists of a request, null removes its key."""
    media = "[{type: reference_image, url: 'https://example.com/a.png', reference_voice: null}]"
    jobs = f"""- id: a
  matrix: {{v: [null]}}
  request: {{model: wan2.7-r2v, prompt: x, media: {media}}}
  metadata: {{deep: [{{x: {value}, y: [{value}, {{z: {value}}}]}}], own: {{gone: {value}}}}}
"""

    job = read_jobs(tmp_path, jobs).jobs[0]

    assert {"deep": [{"x": None, "y": [None, {"z": None}]}], "own": {}} == job.metadata
    assert [{"type": "reference_image", "url": "https://example.com/a.png"}] == job.request["media"]


def test_defaults_of_a_model_that_rows_name(tmp_path: Path) -> None:
    """If the model is a placeholder, each job has the defaults of its own model."""
    header = (
        f"defaults: {{models: {{{SEEDANCE}: {{size: 480p}}, seedance-1-5-pro-251215: {{draft: true}}}}}}\n"
    )
    models = f"[{SEEDANCE}, seedance-1-5-pro-251215, seedance-1-0-pro-fast-251015]"
    jobs = f"- {{id: '${{m}}', matrix: {{m: {models}}}, request: {{model: '${{m}}', prompt: x, size: 480p}}}}"

    requests = read_jobs(tmp_path, jobs, header).requests

    assert [
        {"size", "model", "prompt"},
        {"draft", "size", "model", "prompt"},
        {"size", "model", "prompt"},
    ] == [set(request) for request in requests]


def test_matrix_and_repeat(tmp_path: Path) -> None:
    """Every combination is made once; the last dimension changes fastest, and n fastest of all."""
    jobs = f"""\
- id: ${{seed}}-${{ratio}}-${{n}}
  matrix: {{seed: [1, 2], ratio: [16:9, 9:16]}}
  repeat: 2
  request: {{model: {SEEDANCE}, prompt: x, seed: '${{seed}}', ratio: '${{ratio}}'}}
"""

    result = read_jobs(tmp_path, jobs)

    assert [
        f"{seed}-{ratio}-{n}" for seed in (1, 2) for ratio in ("16:9", "9:16") for n in (1, 2)
    ] == result.ids
    assert list(range(8)) == [job.index for job in result.jobs]
    assert [1, 1, 1, 1, 2, 2, 2, 2] == [request["seed"] for request in result.requests]
    assert [] == result.problems


def test_rows_times_matrix(tmp_path: Path) -> None:
    """A row file and a matrix make every combination, row by row, with the row as their place."""
    (tmp_path / "r.csv").write_text("name\na\nb\n")
    jobs = (
        "- {id: '${name}${seed}', from: r.csv, matrix: {seed: [1, 2]}, "
        f"request: {{model: {SEEDANCE}, prompt: x, seed: '${{seed}}', ratio: 16:9}}, metadata: {{n: '${{name}}'}}}}"
    )

    result = read_jobs(tmp_path, jobs)

    assert ["a1", "a2", "b1", "b2"] == result.ids
    assert [2, 2, 3, 3] == [job.source.line for job in result.jobs]


def test_repeat_without_an_id(tmp_path: Path) -> None:
    """Repetitions have different ids, and no warning."""
    result = read_jobs(tmp_path, f"- {{repeat: 3, request: {{model: {SEEDANCE}, prompt: x}}}}")

    assert [] == result.problems
    assert ["1", "2", "3"] == [job_id.rsplit("-", 1)[1] for job_id in result.ids]
    assert 1 == len({job.digest for job in result.jobs})


def test_variables(tmp_path: Path) -> None:
    """A variable may use the date and those above it; a job's replace the manifest's, the command line's replace all."""
    header = "vars: {look: warm, tag: '${date}/${look}', size: 480p}\n"
    jobs = f"""\
- id: ${{name}}
  from: r.csv
  vars: {{size: 720p, line: '${{name}}: ${{tag}}'}}
  request: {{model: {SEEDANCE}, prompt: '${{line}}', size: '${{size}}'}}
"""
    (tmp_path / "r.csv").write_text("name\na\nb\n")

    assert [("a: 2026-11-21/warm", "720p"), ("b: 2026-11-21/warm", "720p")] == [
        (request["prompt"], request["size"]) for request in read_jobs(tmp_path, jobs, header).requests
    ]
    assert [("a: 2026-11-21/cold", "1080p"), ("b: 2026-11-21/cold", "1080p")] == [
        (request["prompt"], request["size"])
        for request in read_jobs(tmp_path, jobs, header, look="cold", size="1080p").requests
    ]


def test_types_of_rows(tmp_path: Path) -> None:
    """A JSONL row keeps the types of its values, a CSV cell is converted to the document's type, null is absent."""
    (tmp_path / "r.jsonl").write_text('{"seed": 5, "image": null, "id": 7}\n')
    (tmp_path / "r.csv").write_text("seed,flag\n5,TRUE\n")
    jobs = f"""\
- {{id: '${{id}}', from: r.jsonl, request: {{model: {SEEDANCE}, prompt: x, seed: '${{seed}}', image: '${{image}}'}}}}
- {{id: b, from: r.csv, request: {{model: {SEEDANCE}, prompt: y, seed: '${{seed}}', watermark: '${{flag}}'}}}}
"""

    result = read_jobs(tmp_path, jobs)

    assert ["7", "b"] == result.ids
    assert {"model": SEEDANCE, "prompt": "x", "seed": 5} == result.requests[0]
    assert {"model": SEEDANCE, "prompt": "y", "seed": 5, "watermark": True} == result.requests[1]


def test_values_are_not_read_again(tmp_path: Path) -> None:
    """A value that contains ${...} is sent as it is."""
    (tmp_path / "r.csv").write_text('prompt\n"costs ${price}, $${x}"\n')

    result = read_jobs(
        tmp_path, f"- {{id: a, from: r.csv, request: {{model: {SEEDANCE}, prompt: '${{prompt}}'}}}}"
    )

    assert "costs ${price}, $${x}" == result.requests[0]["prompt"]


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ("- {id: a, request: {model: '${m}'}}", "m.yaml:3:28: jobs[0] \"a\": unknown placeholder '${m}'; the names are date"),
        ("- {id: a, repeat: 2, vars: {v: '${w}'}}", "m.yaml:3:32: jobs[0] \"a\": unknown placeholder '${w}'; the names are date, n"),
        ("- {id: '${row}', from: r.csv, request: {prompt: '${promt}'}}", "m.yaml:3:49: jobs[0] \"${row}\": unknown placeholder '${promt}'; did you mean 'prompt'? The names are date, prompt, row; r.csv is read with ',' between its columns"),
        ("- {from: r.csv, matrix: {row: [1]}}", "m.yaml:3:31: jobs[0]: 'row' is a column of the row file too; rename one of them"),
        ("- {matrix: {n: [1]}, repeat: 2}", "m.yaml:3:30: jobs[0]: 'n' is the number of the repetition, and is a column or in the matrix too; rename the other one"),
        ("- {from: no.csv}", "m.yaml:3:10: jobs[0]: 'no.csv' can't be read: No such file or directory; row files are relative to the manifest's folder: no.csv"),
        ("- {from: m.yaml}", "m.yaml:3:10: jobs[0]: 'm.yaml' does not have the suffix of a row file; row files end in .csv, .tsv, .txt, .jsonl, .ndjson, .json, .xlsx or .parquet"),
        ("- {from: none.csv}", "m.yaml:3:10: warning: jobs[0]: 'none.csv' has no rows; the entry makes no job"),
        ("- {from: ragged.csv}", "ragged.csv:2:3: jobs[0]: the row has 2 cells, the file 1 column; put cells with separators or line breaks in double quotes"),
        ("- {from: twice.csv}", "twice.csv:1: jobs[0]: two columns are named 'a'; give each column a name of its own"),
        ("- {from: r.jsonl, request: {prompt: '${a}'}}", "r.jsonl:1: jobs[0]: the row has no 'a', which the job uses; it has b"),
    ],
)  # fmt: skip
def test_invalid_entries(tmp_path: Path, jobs: str, expected: str) -> None:
    """Each mistake is reported once, where it is written: in the manifest, or at the line of the row file."""
    (tmp_path / "r.csv").write_text("row,prompt\na,b\n")
    (tmp_path / "none.csv").write_text("a\n")
    (tmp_path / "ragged.csv").write_text("a\nb,c\n")
    (tmp_path / "twice.csv").write_text("a,a\n")
    (tmp_path / "r.jsonl").write_text('{"b": 1}\n')

    assert [expected] == read_jobs(tmp_path, jobs).problems


def test_an_invalid_variable_of_the_manifest(tmp_path: Path) -> None:
    """What is wrong with vars is reported at vars."""
    result = read_jobs(
        tmp_path, f"- {{id: a, request: {{model: {SEEDANCE}, prompt: x}}}}", "vars: {a: '${b}', b: 1}\n"
    )

    assert ["m.yaml:2:11: unknown placeholder '${b}'; the names are date"] == result.problems


def test_a_manifest_with_spaces_in_its_path(tmp_path: Path) -> None:
    """Folders and files with spaces and Chinese names are found."""
    folder = tmp_path / "my 猫 folder"
    folder.mkdir()
    (folder / "行 1.csv").write_text("p\n小猫\n", encoding="utf-8")
    path = folder / "m.yaml"
    path.write_text(
        f"version: 1\njobs:\n- {{id: '${{p}}', from: 行 1.csv, request: {{model: {SEEDANCE}, prompt: '${{p}}'}}}}",
        encoding="utf-8",
    )

    assert ["小猫"] == read_manifest(path).ids


@pytest.mark.parametrize("name", ["exclude", "include"])
def test_matrix_filters_of_other_programs(tmp_path: Path, name: str) -> None:
    """A key that selects combinations elsewhere is an axis here: an error, unless a placeholder uses the axis."""
    start = f"- {{matrix: {{seed: [1, 2], {name}: [{{seed: 1}}]}}, request: {{model: {SEEDANCE}, prompt: "
    problems = read_jobs(tmp_path, start + "'${seed}'}}").problems

    assert [
        f"m.yaml:3:36: jobs[0]: matrix.{name}: this would be an axis of the matrix like any other, and no placeholder "
        f"uses it; write the combinations as several entries; for an axis of this name, use ${{{name}}}"
    ] == problems
    assert [] == read_jobs(tmp_path, start + f"'${{seed}} ${{{name}}}'}}}}").problems

    mapping = read_jobs(
        tmp_path, f"- {{matrix: {{{name}: {{seed: 1}}}}, request: {{model: {SEEDANCE}}}}}"
    ).problems
    assert "each key of a matrix, exclude and include too, is an axis with a list of values" in mapping[0]


def test_nested_and_absent_values_of_rows(tmp_path: Path) -> None:
    """A value inside another one has a path; a default is for rows that lack the value; null drops an item of a list."""
    (tmp_path / "r.jsonl").write_text(
        '{"id": "a", "text": {"main": "A kitten"}, "seed": 3, "ref": ["r1"]}\n'
        '{"id": "b", "text": {"main": "A cat", "style": ""}, "seed": null}\n'
        '{"id": "c", "text": {}}\n'
    )
    request = f"{{model: {SEEDANCE}, prompt: '${{text.main}}, ${{text.style:-cinematic}}', seed: '${{seed:-7}}', size: '${{size:-}}'}}"

    result = read_jobs(
        tmp_path,
        f"- {{id: '${{id}}', from: r.jsonl, metadata: {{refs: ['${{ref:-}}']}}, request: {request}}}",
    )

    assert ["a", "b"] == result.ids
    assert [
        {"model": SEEDANCE, "prompt": "A kitten, cinematic", "seed": 3},
        {"model": SEEDANCE, "prompt": "A cat, cinematic", "seed": 7},
    ] == result.requests
    assert [
        "r.jsonl:3: jobs[0]: the row has no 'text.main', which the job uses; it has id, text"
    ] == result.problems


def test_a_default_of_a_misspelled_name(tmp_path: Path) -> None:
    """A default everywhere for a name that is nearly one of the names is a warning."""
    (tmp_path / "r.csv").write_text("prompt\nA kitten\n")
    request = f"{{model: {SEEDANCE}, prompt: '${{promt:-A cat}}', seed: '${{seed:-7}}'}}"

    result = read_jobs(tmp_path, f"- {{id: a, from: r.csv, request: {request}}}")

    assert [{"model": SEEDANCE, "prompt": "A cat", "seed": 7}] == result.requests
    assert [
        "m.yaml:3:74: warning: jobs[0] \"a\": unknown placeholder '${promt}', which has its default everywhere; did you mean 'prompt'?"
    ] == [problem.partition(" The names")[0] for problem in result.problems]

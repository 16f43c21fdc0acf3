"""A manifest from its file to checked jobs: ids, duplicates, strictness and memory."""

from __future__ import annotations

import tracemalloc
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.problem import Position, Problem, Severity
from runner.manifest.duplicates import HashBuckets
from runner.manifest.loader import ProblemCollector, load
from tests.manifest.helpers import SEEDANCE, fail, read_jobs, read_manifest


def job(job_id: str | None, prompt: str = "x", more: str = "") -> str:
    """Return an entry."""
    name = "" if job_id is None else f"id: {job_id}, "
    return f"- {{{name}request: {{model: {SEEDANCE}, prompt: {prompt}}}{more}}}\n"


def test_automatic_ids_do_not_depend_on_the_order(tmp_path: Path) -> None:
    """A job without an id keeps its automatic id, and so its paid task, if others are moved, inserted or removed."""
    before = read_jobs(tmp_path, job(None, "a") + job(None, "b"))
    after = read_jobs(tmp_path, job(None, "c") + job("named", "d") + job(None, "b") + job(None, "a"))

    by_prompt = {request["prompt"]: job_id for request, job_id in zip(after.requests, after.ids, strict=True)}
    assert before.ids == [by_prompt["a"], by_prompt["b"]]
    assert [] == after.problems


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        (job("a") + job("b", "y") + job("a", "z"), ["m.yaml:5:8: jobs[2] \"a\": the job at m.yaml:3:3 has the id 'a' too; each job needs an id of its own"]),
        (job(None) + job(None), ["m.yaml:4:3: jobs[1]: the job at m.yaml:3:3 has the same request and no id; repeat makes a job more than once"]),
        (job("a") + job("b"), ["m.yaml:4:3: warning: jobs[1] \"b\": the request is the same as that of 'a' at m.yaml:3:3, and both are billed; use repeat if this is intended"]),
        (job("a") + job("a"), ["m.yaml:4:8: jobs[1] \"a\": the job at m.yaml:3:3 has the id 'a' too; each job needs an id of its own"]),
        (job("'a${n}'", more=", repeat: 3"), []),
        (job("'a${n}'", more=", repeat: 3") + job("b"), ["m.yaml:4:3: warning: jobs[1] \"b\": the request is the same as that of 'a1' at m.yaml:3:3, and both are billed; use repeat if this is intended"]),
        (job("a", more=", task_id: t") + job("b", "y", more=", task_id: t"), ["m.yaml:4:74: jobs[1] \"b\": the task 't' is named by 'a' at m.yaml:3:3 too; a task makes one video, of one job"]),
        (job("'a${n}'", more=", task_id: t, repeat: 2"), ["m.yaml:3:80: jobs[0] \"a2\": the task 't' is named by 'a1' of this entry too; a task makes one video, of one job"]),
        (job("a", more=", repeat: 3"), ["m.yaml:3:8: jobs[0] \"a\": several jobs of this entry have the id 'a'; make it differ by ${n}"]),
        (job(None, more=", matrix: {v: [1, 2]}"), ["m.yaml:3:3: jobs[0]: several jobs of this entry have the same request and no id; repeat makes a job more than once"]),
        (job("'${v}'", more=", matrix: {v: [1, 2]}"), ["m.yaml:3:3: warning: jobs[0] \"2\": the request is the same as that of '1' of this entry, and both are billed; use repeat if this is intended"]),
    ],
)  # fmt: skip
def test_duplicates(tmp_path: Path, jobs: str, expected: list[str]) -> None:
    """A duplicate job would be billed twice: the places of both are reported."""
    result = read_jobs(tmp_path, jobs)

    assert expected == result.problems
    assert result.manifest.counts is not None
    assert sum("warning" not in problem for problem in expected) <= result.manifest.counts.duplicates


def test_duplicates_in_rows(tmp_path: Path) -> None:
    """Duplicate rows are reported with the lines of both."""
    (tmp_path / "r.csv").write_text("name,p\na,x\nb,y\na,z\nc,x\n")

    result = read_jobs(
        tmp_path, f"- {{id: '${{name}}', from: r.csv, request: {{model: {SEEDANCE}, prompt: '${{p}}'}}}}"
    )

    assert [
        "r.csv:4: jobs[0] \"a\": the job at r.csv:2 has the id 'a' too; each job needs an id of its own",
        "r.csv:5: warning: jobs[0] \"c\": the request is the same as that of 'a' at r.csv:2, and both are billed; use repeat if this is intended",
    ] == result.problems


@given(st.lists(st.text(max_size=3)), st.sets(st.integers(0, 20)))
def test_hashes(texts: list[str], spilled_after: set[int]) -> None:
    """The hash of every text that was added twice is found, in memory and in the file."""
    with closing(HashBuckets()) as hashes:
        for place, text in enumerate(texts):
            hashes.add(text)
            if place in spilled_after:
                hashes.spill()

        assert {hash(text) for text in texts if texts.count(text) > 1} == hashes.repeated()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_hashes_with_a_full_disk() -> None:
    """If the disk is full, the hashes are kept in memory."""
    with closing(HashBuckets(lambda: open("/dev/full", "r+b", buffering=0))) as hashes:
        for text in ("a", "b", "a"):
            hashes.add(text)
            hashes.spill()

        assert {hash("a")} == hashes.repeated()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (r'"a\tb"', r"id: 'a\tb' has a control character in it"),
        ('"  "', "id: it is empty"),
        ("a" * 201, "id: it has 201 characters"),
    ],
)
def test_invalid_ids(tmp_path: Path, value: str, message: str) -> None:
    """An id must be readable, on one line."""
    assert message in read_jobs(tmp_path, job(value)).problems[0]


@pytest.mark.parametrize("value", ["小猫", "a/b", "..", "a b", "👩‍👩‍👧", "a" * 200])
def test_valid_ids(tmp_path: Path, value: str) -> None:
    """Any readable text is a valid id; file names have rules of their own."""
    assert [value] == read_jobs(tmp_path, job(f"'{value}'")).ids


def test_extra_fields(tmp_path: Path) -> None:
    """A field that no schema knows is added to the body as it is, with a warning; a field of the request is an error."""
    result = read_jobs(tmp_path, job("a", more=", extra: {new_field: {deep: true}}"))
    both = read_jobs(tmp_path, job("a", more=", extra: {prompt: y}"))

    assert {"model": SEEDANCE, "prompt": "x", "new_field": {"deep": True}} == result.requests[0]
    assert ("extra: 'new_field' is added to the body unchecked",) == result.jobs[0].warnings
    assert [
        "m.yaml:3:84: warning: jobs[0] \"a\": extra: 'new_field' is added to the body unchecked"
    ] == result.problems
    assert "extra: 'prompt' is in the request too; keep one of them" in both.problems[0]


def test_task_ids(tmp_path: Path) -> None:
    """A task id is kept, and one that can't be polled is an error."""
    assert "task_1" == read_jobs(tmp_path, job("a", more=", task_id: task_1, timeout: 2h")).jobs[0].task_id
    assert (
        "task_id: 'task_1 ' is not a task id"
        in read_jobs(tmp_path, job("a", more=", task_id: 'task_1 '")).problems[0]
    )


def test_timeout(tmp_path: Path) -> None:
    """A job's own timeout is in seconds."""
    assert 7200 == read_jobs(tmp_path, job("a", more=", timeout: 2h")).jobs[0].timeout_s


def test_a_named_schema(tmp_path: Path) -> None:
    """A model that no schema knows is checked with the schema that the job names, and is an error without one."""
    entry = "- {id: a, request: {model: wan2.9-i2v, image: 'https://example.com/a.png', prompt: x}"

    assert "first-frame-video" == read_jobs(tmp_path, entry + ", schema: first-frame-video}").jobs[0].schema
    assert "no schema knows 'wan2.9-i2v'" in read_jobs(tmp_path, entry + "}").problems[0]


def test_strict(tmp_path: Path) -> None:
    """If warnings are errors, a job with a warning is left out too."""
    path = tmp_path / "m.yaml"
    path.write_text("version: 1\njobs:\n" + job("a", more=", extra: {b: 1}") + job("c", "y"))

    lenient, strict = read_manifest(path), read_manifest(path, is_strict=True)

    assert (["a", "c"], ["c"]) == (lenient.ids, strict.ids)
    assert [problem.replace("warning: ", "") for problem in lenient.problems] == strict.problems


def test_invalid_jobs_are_handed_over(tmp_path: Path) -> None:
    """A job that is left out is given to the handler, so that it can be recorded."""
    result = read_jobs(tmp_path, job("a") + job("b", "y, seconds: 13") + job("c", "z"))

    assert ["a", "c"] == result.ids
    assert [("b", 1)] == [(spec.job_id, spec.index) for spec, _ in result.invalid]
    assert "seconds: '13' is not allowed" in result.invalid[0][1]
    assert result.manifest.counts is not None
    assert (3, 1, 0) == (
        result.manifest.counts.jobs,
        result.manifest.counts.invalid,
        result.manifest.counts.duplicates,
    )


def test_a_mistake_in_the_entry_is_reported_once(tmp_path: Path) -> None:
    """A mistake that concerns every row is reported once, in the manifest."""
    (tmp_path / "r.csv").write_text("p\n" + "".join(f"{n}\n" for n in range(1000)))

    result = read_jobs(
        tmp_path,
        f"- {{id: '${{p}}', from: r.csv, request: {{model: {SEEDANCE}, prompt: '${{p}}', seeds: 1}}}}",
    )

    assert [
        "m.yaml:3:87: jobs[0] \"0\": unknown key 'seeds' in request; did you mean 'seed'?"
    ] == result.problems
    assert 1000 == len(result.invalid)


def test_a_mistake_in_a_row(tmp_path: Path) -> None:
    """A mistake in a row is reported at its line, however far down it is."""
    rows = [f"n{n},{n}" for n in range(9000)]
    rows[7998] = "n7998,abc"
    (tmp_path / "r.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(["name,seed", *rows]).encode())

    result = read_jobs(
        tmp_path,
        f"- {{id: '${{name}}', from: r.csv, request: {{model: {SEEDANCE}, prompt: x, seed: '${{seed}}'}}}}",
    )

    assert ["r.csv:8000:7: jobs[0] \"n7998\": seed: 'abc' is text, not a whole number"] == result.problems


def test_a_null_for_a_required_key(tmp_path: Path) -> None:
    """If a row's null is why a key is missing, it is reported at the row."""
    (tmp_path / "r.jsonl").write_text('{"p": "x"}\n{"p": null}\n')

    result = read_jobs(tmp_path, f"- {{from: r.jsonl, request: {{model: {SEEDANCE}, prompt: '${{p}}'}}}}")

    assert ["r.jsonl:2:7: jobs[0]: missing key 'prompt' in request"] == [
        one.split(";")[0] for one in result.problems
    ]


def test_numbers_that_json_does_not_have(tmp_path: Path) -> None:
    """An infinity can't be sent, and is reported."""
    result = read_jobs(tmp_path, job("a", more=", extra: {b: '${v}'}"), v=float("inf"))

    assert "the request has a number that JSON does not have" in " ".join(result.problems)


@pytest.mark.slow
def test_jobs_are_streamed(tmp_path: Path) -> None:
    """Thirty thousand jobs need no more memory than the hashes for duplicates."""
    (tmp_path / "r.csv").write_text("name,seed\n" + "".join(f"n{n},{n}\n" for n in range(3_000)))
    path = tmp_path / "m.yaml"
    path.write_text(f"""\
version: 1
jobs:
- id: ${{name}}-${{size}}-${{n}}
  from: r.csv
  matrix: {{size: [480p, 720p]}}
  repeat: 5
  request: {{model: {SEEDANCE}, prompt: 'take ${{n}}', seed: '${{seed}}', size: '${{size}}'}}
""")
    manifest = load(path, fail, variables={}, today=date(2026, 11, 21))
    jobs = manifest.jobs(fail)

    tracemalloc.start()
    count = 0
    for count, _ in enumerate(jobs, start=1):
        if count == 1000:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert 30_000 == count
    # Two numbers of eight bytes for each job, and what arrays allocate in advance.
    assert peak - before < 30 * count


def test_jobs_are_counted_while_they_are_read(tmp_path: Path) -> None:
    """Valid jobs are counted at the first and at every 10,000th, for people who wait."""
    (tmp_path / "m.yaml").write_text(
        f"version: 1\njobs:\n{job(None, more=', repeat: 10001')}", encoding="utf-8"
    )
    manifest = load(tmp_path / "m.yaml", fail, variables={}, today=date(2026, 11, 21))
    counts: list[int] = []

    jobs = sum(1 for _ in manifest.jobs(fail, on_count=counts.append))

    assert (10_001, [0, 10_000]) == (jobs, counts)


def test_problems_are_bounded() -> None:
    """Everything is counted and handed on, and a limited number kept; warnings do not displace errors."""
    handed_on: list[Problem] = []
    problems = ProblemCollector(handed_on.append, limit=2)
    for severity in (Severity.WARNING, Severity.WARNING, Severity.WARNING, Severity.ERROR):
        problems(Problem(severity, Position("a"), "b"))

    assert (1, 3, 4) == (problems.errors, problems.warnings, len(handed_on))
    assert [Severity.WARNING, Severity.WARNING, Severity.ERROR] == [one.severity for one in problems.problems]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("lenght", "did you mean 'length'?"),
        ("SEED", "did you mean 'seed'?"),
        ("zzz", "the manifest uses date, length, night, own, prompt, seed, unset"),
        ("axis", "the manifest uses date, length, night, own, prompt, seed, unset"),
    ],
)
def test_unused_variable(tmp_path: Path, name: str, hint: str) -> None:
    """A variable of the command line that has no effect is an error, which no option overrides: it is mistyped."""
    result = read_jobs(
        tmp_path,
        f"- {{vars: {{own: 1}}, matrix: {{axis: [3]}}, request: {{model: {SEEDANCE}, prompt: '${{prompt}}', seed: '${{seed}}', seconds: '${{axis}}'}}}}",
        "name: n-${night}\nvars: {length: 5, unset: a}\n",
        **{"night": "1", "prompt": "x", "seed": "1", name: "8"},
    )

    assert [
        f"m.yaml: --var {name}: the manifest has no variable and no placeholder of this name; {hint}"
    ] == (result.problems)
    assert result.manifest.counts is not None
    assert not result.manifest.counts.is_usable


@pytest.mark.parametrize("name", ["length", "night", "own", "date", "prompt", "in_defaults"])
def test_used_variable(tmp_path: Path, name: str) -> None:
    """A variable may be declared by the manifest or an entry, or be used by a placeholder alone."""
    values = {
        "night": "1",
        "prompt": "x",
        "in_defaults": "480p",
        name: "2" if name != "in_defaults" else "720p",
    }
    result = read_jobs(
        tmp_path,
        f"- {{vars: {{own: 1}}, request: {{model: {SEEDANCE}, prompt: '${{prompt}}'}}}}",
        "name: n-${night}\nvars: {length: 5}\ndefaults: {request: {size: '${in_defaults}'}}\n",
        **values,
    )

    assert [] == result.problems


def test_unused_variable_of_a_batch_file(tmp_path: Path) -> None:
    """A batch file has no variables, so each one of the command line is an error."""
    path = tmp_path / "m.jsonl"
    body = f'{{"model": "{SEEDANCE}", "prompt": "x"}}'
    path.write_text(f'{{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {body}}}\n')

    assert [
        "m.jsonl: --var seed: the manifest has no variable and no placeholder of this name; the manifest uses none"
    ] == (read_manifest(path, seed="1").problems)


def test_a_blank_prompt_in_a_row(tmp_path: Path) -> None:
    """Rows that differ in their prompt are not checked each, and one with a prompt of blanks is still an error."""
    (tmp_path / "rows.csv").write_text("prompt\nA kitten\nA puppy\n   \n")
    path = tmp_path / "m.yaml"
    path.write_text(
        "version: 1\njobs:\n- {id: 'a-${prompt}', from: rows.csv, request: "
        "{model: wan2.7-t2v, prompt: '${prompt}'}}\n"
    )

    result = read_manifest(path)

    assert 2 == len(result.jobs)
    assert ["prompt: has only blanks"] == [
        problem.split(": ", 2)[2] for problem in result.problems if "blanks" in problem
    ]

"""A manifest from its file to checked jobs: ids, doubles, strictness, and what it costs."""

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
from tests.manifest.jobs import SEEDANCE, read, read_text
from tests.manifest.reading import refuse


def job(job_id: str | None, prompt: str = "x", more: str = "") -> str:
    """Write an entry."""
    name = "" if job_id is None else f"id: {job_id}, "
    return f"- {{{name}request: {{model: {SEEDANCE}, prompt: {prompt}}}{more}}}\n"


def test_automatic_ids_do_not_depend_on_places(tmp_path: Path) -> None:
    """A job without an id keeps its name, and so its paid task, when others are moved, inserted or taken out."""
    before = read_text(tmp_path, job(None, "a") + job(None, "b"))
    after = read_text(tmp_path, job(None, "c") + job("named", "d") + job(None, "b") + job(None, "a"))

    by_prompt = {request["prompt"]: job_id for request, job_id in zip(after.requests, after.ids, strict=True)}
    assert before.ids == [by_prompt["a"], by_prompt["b"]]
    assert [] == after.problems


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        (job("a") + job("b", "y") + job("a", "z"), ["m.yaml:5:8: jobs[2] \"a\": the job at m.yaml:3:3 has the id 'a' too; each job needs an id of its own"]),
        (job(None) + job(None), ["m.yaml:4:3: jobs[1]: the job at m.yaml:3:3 asks for the same, and none has an id; repeat makes a job more than once"]),
        (job("a") + job("b"), ["m.yaml:4:3: warning: jobs[1] \"b\": the request is the same as that of 'a' at m.yaml:3:3, and both are paid for; use repeat if that is meant"]),
        (job("a") + job("a"), ["m.yaml:4:8: jobs[1] \"a\": the job at m.yaml:3:3 has the id 'a' too; each job needs an id of its own"]),
        (job("'a${n}'", more=", repeat: 3"), []),
        (job("'a${n}'", more=", repeat: 3") + job("b"), ["m.yaml:4:3: warning: jobs[1] \"b\": the request is the same as that of 'a1' at m.yaml:3:3, and both are paid for; use repeat if that is meant"]),
        (job("a", more=", repeat: 3"), ["m.yaml:3:8: jobs[0] \"a\": several jobs of this entry have the id 'a'; tell them apart by ${n}"]),
        (job(None, more=", matrix: {v: [1, 2]}"), ["m.yaml:3:3: jobs[0]: several jobs of this entry ask for the same, and none has an id; repeat makes a job more than once"]),
        (job("'${v}'", more=", matrix: {v: [1, 2]}"), ["m.yaml:3:3: warning: jobs[0] \"2\": the request is the same as that of '1' of this entry too, and both are paid for; use repeat if that is meant"]),
    ],
)  # fmt: skip
def test_doubles(tmp_path: Path, jobs: str, expected: list[str]) -> None:
    """A job that is there twice by mistake would be paid for twice: both places are told."""
    found = read_text(tmp_path, jobs)

    assert expected == found.problems
    assert found.manifest.counts is not None
    assert sum("warning" not in problem for problem in expected) <= found.manifest.counts.duplicates


def test_doubles_in_rows(tmp_path: Path) -> None:
    """Doubles among rows are told by the lines of both."""
    (tmp_path / "r.csv").write_text("name,p\na,x\nb,y\na,z\nc,x\n")

    found = read_text(
        tmp_path, f"- {{id: '${{name}}', from: r.csv, request: {{model: {SEEDANCE}, prompt: '${{p}}'}}}}"
    )

    assert [
        "r.csv:4: jobs[0] \"a\": the job at r.csv:2 has the id 'a' too; each job needs an id of its own",
        "r.csv:5: warning: jobs[0] \"c\": the request is the same as that of 'a' at r.csv:2, and both are paid for; use repeat if that is meant",
    ] == found.problems


@given(st.lists(st.text(max_size=3)), st.sets(st.integers(0, 20)))
def test_hashes(texts: list[str], spilled_after: set[int]) -> None:
    """Every text that came twice is found by its number, and no text is held, wherever the numbers are."""
    with closing(HashBuckets()) as hashes:
        for place, text in enumerate(texts):
            hashes.add(text)
            if place in spilled_after:
                hashes.spill()

        assert {hash(text) for text in texts if texts.count(text) > 1} == hashes.repeated()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_hashes_without_room() -> None:
    """Where the disk has no room for the numbers, they are found in memory."""
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
def test_ids_that_are_refused(tmp_path: Path, value: str, message: str) -> None:
    """An id must be able to name a job on a line, for a person."""
    assert message in read_text(tmp_path, job(value)).problems[0]


@pytest.mark.parametrize("value", ["小猫", "a/b", "..", "a b", "👩‍👩‍👧", "a" * 200])
def test_ids_that_are_taken(tmp_path: Path, value: str) -> None:
    """Any text that a person can read is an id; how files are named is another matter."""
    assert [value] == read_text(tmp_path, job(f"'{value}'")).ids


def test_extra_fields(tmp_path: Path) -> None:
    """A field that no schema knows goes into the body as it is, with a warning; one that is there twice is an error."""
    found = read_text(tmp_path, job("a", more=", extra: {new_field: {deep: true}}"))
    both = read_text(tmp_path, job("a", more=", extra: {prompt: y}"))

    assert {"model": SEEDANCE, "prompt": "x", "new_field": {"deep": True}} == found.requests[0]
    assert ("extra: 'new_field' goes into the body unchecked",) == found.jobs[0].warnings
    assert [
        "m.yaml:3:84: warning: jobs[0] \"a\": extra: 'new_field' goes into the body unchecked"
    ] == found.problems
    assert "extra: 'prompt' is in the request too; keep one of them" in both.problems[0]


def test_tasks_that_exist(tmp_path: Path) -> None:
    """A task id is handed on, and one that could not be polled is refused."""
    assert "task_1" == read_text(tmp_path, job("a", more=", task_id: task_1, timeout: 2h")).jobs[0].task_id
    assert (
        "task_id: 'task/1' is not a task id"
        in read_text(tmp_path, job("a", more=", task_id: task/1")).problems[0]
    )


def test_timeout(tmp_path: Path) -> None:
    """A job's own timeout is in seconds."""
    assert 7200 == read_text(tmp_path, job("a", more=", timeout: 2h")).jobs[0].timeout_s


def test_a_named_schema(tmp_path: Path) -> None:
    """A model that no schema knows can be checked by one that the job names, and is refused without."""
    entry = "- {id: a, request: {model: new-model, image: 'https://example.com/a.png', prompt: x}"

    assert "first-frame-video" == read_text(tmp_path, entry + ", schema: first-frame-video}").jobs[0].schema
    assert "no schema knows 'new-model'" in read_text(tmp_path, entry + "}").problems[0]


def test_strict(tmp_path: Path) -> None:
    """When warnings are errors, a job that has one is left out too."""
    path = tmp_path / "m.yaml"
    path.write_text("version: 1\njobs:\n" + job("a", more=", extra: {b: 1}") + job("c", "y"))

    lenient, strict = read(path), read(path, is_strict=True)

    assert (["a", "c"], ["c"]) == (lenient.ids, strict.ids)
    assert [problem.replace("warning: ", "") for problem in lenient.problems] == strict.problems


def test_what_is_refused_is_told(tmp_path: Path) -> None:
    """A job that is left out is handed over with what is known of it, so that it can be recorded."""
    found = read_text(tmp_path, job("a") + job("b", "y, seconds: 13") + job("c", "z"))

    assert ["a", "c"] == found.ids
    assert [("b", 1)] == [(spec.job_id, spec.index) for spec, _ in found.refused]
    assert "seconds: '13' is not allowed" in found.refused[0][1]
    assert found.manifest.counts is not None
    assert (3, 1, 0) == (
        found.manifest.counts.jobs,
        found.manifest.counts.invalid,
        found.manifest.counts.duplicates,
    )


def test_a_mistake_in_the_entry_is_told_once(tmp_path: Path) -> None:
    """What is wrong with every row alike stands in the manifest, and is told there and not a thousand times."""
    (tmp_path / "r.csv").write_text("p\n" + "".join(f"{n}\n" for n in range(1000)))

    found = read_text(
        tmp_path,
        f"- {{id: '${{p}}', from: r.csv, request: {{model: {SEEDANCE}, prompt: '${{p}}', seeds: 1}}}}",
    )

    assert [
        "m.yaml:3:87: jobs[0] \"0\": unknown key 'seeds' in request; did you mean 'seed'?"
    ] == found.problems
    assert 1000 == len(found.refused)


def test_a_typo_deep_in_a_row_file(tmp_path: Path) -> None:
    """What came with a row is told at its line, however far down that is."""
    rows = [f"n{n},{n}" for n in range(9000)]
    rows[7998] = "n7998,abc"
    (tmp_path / "r.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(["name,seed", *rows]).encode())

    found = read_text(
        tmp_path,
        f"- {{id: '${{name}}', from: r.csv, request: {{model: {SEEDANCE}, prompt: x, seed: '${{seed}}'}}}}",
    )

    assert ["r.csv:8000: jobs[0] \"n7998\": seed: 'abc' is text, not a whole number"] == found.problems


def test_a_null_that_takes_a_needed_key_away(tmp_path: Path) -> None:
    """Where a row's null is why a key is missing, the row is told."""
    (tmp_path / "r.jsonl").write_text('{"p": "x"}\n{"p": null}\n')

    found = read_text(tmp_path, f"- {{from: r.jsonl, request: {{model: {SEEDANCE}, prompt: '${{p}}'}}}}")

    assert ["r.jsonl:2: jobs[0]: missing key 'prompt' in request"] == [
        one.split(";")[0] for one in found.problems
    ]


def test_numbers_that_json_lacks(tmp_path: Path) -> None:
    """An infinity can't be sent, and is told rather than raised."""
    found = read_text(tmp_path, job("a", more=", extra: {b: '${v}'}"), v=float("inf"))

    assert "the request holds a number that JSON does not have" in " ".join(found.problems)


@pytest.mark.slow
def test_jobs_are_streamed(tmp_path: Path) -> None:
    """Thirty thousand jobs take no more memory than the numbers that find doubles."""
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
    manifest = load(path, refuse, variables={}, today=date(2026, 11, 21))
    jobs = manifest.jobs(refuse)

    tracemalloc.start()
    count = 0
    for count, _ in enumerate(jobs, start=1):
        if count == 1000:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert 30_000 == count
    # Two numbers of eight bytes a job, with the room that arrays take in advance.
    assert peak - before < 30 * count


def test_problems_are_bounded() -> None:
    """Everything is counted, and only so much kept; warnings leave room for errors."""
    problems = ProblemCollector(limit=2)
    for severity in (Severity.WARNING, Severity.WARNING, Severity.WARNING, Severity.ERROR):
        problems(Problem(severity, Position("a"), "b"))

    assert (1, 3) == (problems.errors, problems.warnings)
    assert [Severity.WARNING, Severity.WARNING, Severity.ERROR] == [one.severity for one in problems.problems]

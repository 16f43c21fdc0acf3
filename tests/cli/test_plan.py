"""`plan`: what a run would do now, for every state that a job can be in, without touching anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.core.lifecycle import State
from runner.store.store import Store
from tests.api.rundir import make_run, write_manifest
from tests.cli.command import runner
from tests.media.samples import png

KEYS = [
    "new",
    "done",
    "changed",
    "gone",
    "uncertain",
    "to_submit",
    "to_poll",
    "to_download",
    "left_alone",
    "seconds_at_limits",
]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POWERTOKENS_BASE_URL", raising=False)


def _counts(*arguments: object) -> dict[str, float]:
    found: dict[str, float] = json.loads(runner("plan", *arguments, "--json").out)
    return {key: count for key, count in found.items() if count}


def test_before_the_first_run_all_is_new() -> None:
    """No directory is made, and the time follows from the rate alone."""
    manifest = write_manifest(Path("m.yaml"), "a", "b", "c")

    assert {"new": 3, "to_submit": 3, "seconds_at_limits": 1.5} == _counts(manifest)
    assert [manifest] == list(Path().iterdir())


def test_the_keys_of_json_are_fixed() -> None:
    """Other programs read them."""
    manifest = write_manifest(Path("m.yaml"), "a")

    assert KEYS == list(json.loads(runner("plan", manifest, "--json").out))


@pytest.mark.parametrize(
    ("state", "counts"),
    [
        (State.PENDING, {"to_submit": 1, "seconds_at_limits": 0.5}),
        (State.SUBMITTING, {"uncertain": 1, "left_alone": 1}),
        (State.SUBMITTED, {"to_poll": 1}),
        (State.DOWNLOADING, {"to_download": 1}),
        (State.SUCCEEDED, {"done": 1}),
        (State.FAILED, {"left_alone": 1}),
        (State.UNCERTAIN, {"uncertain": 1, "left_alone": 1}),
        (State.TIMED_OUT, {"to_poll": 1}),
        (State.UNDELIVERED, {"to_download": 1}),
    ],
)
def test_each_state_leads_where_a_run_would_take_it(state: State, counts: dict[str, float]) -> None:
    """Only what was never sent is submitted; what was paid for is polled and fetched."""
    manifest = write_manifest(Path("m.yaml"), "a")
    run_dir = make_run(Path("out"), manifest, {"a": state})

    assert counts == _counts(manifest, "-o", run_dir)


def test_what_left_the_manifest_is_never_submitted() -> None:
    """Of jobs that are gone, only what was paid for is still polled and fetched."""
    states = {
        "a": State.PENDING,
        "b": State.SUBMITTED,
        "c": State.UNDELIVERED,
        "d": State.SUCCEEDED,
        "e": State.UNCERTAIN,
    }
    run_dir = make_run(Path("out"), write_manifest(Path("all.yaml"), *states, "f"), states)
    manifest = write_manifest(Path("m.yaml"), "f")

    assert {
        "gone": 5,
        "uncertain": 1,
        "to_submit": 1,
        "to_poll": 1,
        "to_download": 1,
        "left_alone": 3,
        "seconds_at_limits": 0.5,
    } == _counts(manifest, "-o", run_dir)


def test_a_changed_job_is_named_with_what_changed() -> None:
    """A run would stop there, and the plan says so before it happens."""
    manifest = write_manifest(Path("m.yaml"), "a", "b")
    run_dir = make_run(Path("out"), manifest, {"a": State.SUCCEEDED, "b": State.PENDING})
    manifest.write_text(manifest.read_text().replace("kitten ${n}", "cat ${n}"))

    ran = runner("plan", manifest, "-o", run_dir)

    assert "changed: a (succeeded): prompt: 'kitten a' -> 'cat a'" in ran.out
    assert "--on-changed" in ran.err
    assert {"changed": 1, "to_submit": 1, "left_alone": 1, "seconds_at_limits": 0.5} == _counts(
        manifest, "-o", run_dir
    )


def test_a_task_that_the_manifest_names_is_polled() -> None:
    """A job with a task_id is never counted among those to submit."""
    manifest = write_manifest(Path("m.yaml"), "a")
    manifest.write_text(manifest.read_text() + "    task_id: task_x\n")

    assert {"new": 1, "to_poll": 1} == _counts(manifest)


def test_durations_seen_before_count() -> None:
    """Four slots and tasks of a minute make eight jobs take two minutes, whatever the rate allows."""
    ids = [f"j{n}" for n in range(9)]
    manifest = write_manifest(Path("m.yaml"), *ids)
    run_dir = make_run(Path("out"), manifest, {"j0": State.SUCCEEDED}, generate_s=60.0)

    ran = runner("plan", manifest, "-o", run_dir)

    assert "at the limits: 2m, bound by limits.in_flight 4" in ran.out


def test_it_changes_nothing_and_says_the_same_twice() -> None:
    """Planning is looking: not a byte of the directory differs afterwards."""
    manifest = write_manifest(Path("m.yaml"), "a", "b")
    run_dir = make_run(Path("out"), manifest, {"a": State.SUCCEEDED})
    before = {path.name: path.read_bytes() for path in run_dir.iterdir()}

    first, second = (runner("plan", manifest, "-o", run_dir) for _ in range(2))

    assert first == second
    assert before == {path.name: path.read_bytes() for path in run_dir.iterdir()}


def test_it_works_while_a_run_is_going() -> None:
    """The lock of the run is no obstacle, and its holder is named."""
    manifest = write_manifest(Path("m.yaml"), "a")
    run_dir = make_run(Path("out"), manifest, {"a": State.SUBMITTED})

    with Store(run_dir):
        ran = runner("plan", manifest, "-o", run_dir)

    assert ran.code == 0
    assert "a run is going on: pid " in ran.out


def test_show_gives_the_exact_requests() -> None:
    """What --show prints is the body that would be sent, defaults applied, and no more of them than asked."""
    manifest = write_manifest(Path("m.yaml"), "a", "b")

    ran = runner("plan", manifest, "--show", "1")

    assert '"prompt": "kitten a"' in ran.out
    assert "kitten b" not in ran.out
    assert "a: submit, new (m.yaml:5:5)" in ran.out


def test_a_local_picture_is_shown_by_its_digest() -> None:
    """A data URI would fill the screen."""
    Path("a.png").write_bytes(png(400, 300))
    manifest = write_manifest(Path("m.yaml"), "a")
    manifest.write_text(manifest.read_text().replace("prompt:", "image: ./a.png, prompt:"))

    assert '"image": "data:image/png;bytes=' in runner("plan", manifest, "--show", "1").out


def test_verbose_says_where_each_setting_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flag over environment over manifest over default, and the one that won is named."""
    manifest = write_manifest(Path("m.yaml"), "a")
    monkeypatch.setenv("POWERTOKENS_BASE_URL", "https://env.example")

    settings = [" ".join(line.split()) for line in runner("plan", manifest, "-v").out.splitlines()]

    assert "gateway.base_url https://env.example (environment)" in settings
    assert "limits.submit 2/s (manifest)" in settings
    assert "limits.downloads 4 (default)" in settings
    flagged = runner("plan", manifest, "-v", "--base-url", "https://flag.example").out
    assert "gateway.base_url https://flag.example (flag)" in " ".join(flagged.split())


def test_an_invalid_manifest_is_refused_as_a_run_would() -> None:
    """All problems, exit 2, and no counts that nobody could rely on."""
    manifest = write_manifest(Path("m.yaml"), "a")
    manifest.write_text(manifest.read_text().replace("prompt:", "promt:"))

    ran = runner("plan", manifest)

    assert (2, "") == (ran.code, ran.out)
    assert "did you mean 'prompt'?" in ran.err


def test_a_simulated_run_is_no_real_one() -> None:
    """As a run would, a plan refuses to mix them up."""
    manifest = write_manifest(Path("m.yaml"), "a")
    run_dir = make_run(Path("out"), manifest, {})

    ran = runner("plan", manifest, "-o", run_dir, "--simulate")

    assert ran.code == 2
    assert "holds a real run, and this would be a simulated one" in ran.err


def test_results_without_a_store_are_refused() -> None:
    """Calling every job new would invite paying for all of them again."""
    manifest = write_manifest(Path("m.yaml"), "a")
    Path("out").mkdir()
    Path("out/results.jsonl").write_text("{}\n")

    ran = runner("plan", manifest, "-o", "out")

    assert ran.code == 2
    assert "error[store-missing]" in ran.err

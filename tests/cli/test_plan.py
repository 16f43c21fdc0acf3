"""`runner plan`: what a run would do now, for every state of a job, without changing anything."""

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
    "cost",
]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POWERTOKENS_BASE_URL", raising=False)


def _counts(*arguments: object) -> dict[str, float]:
    found: dict[str, float] = json.loads(runner("plan", *arguments, "--json").stdout)
    return {key: count for key, count in found.items() if count and key != "cost"}


def test_before_the_first_run_all_is_new() -> None:
    """No directory is created, and the time is estimated from the rate alone."""
    manifest = write_manifest(Path("m.yaml"), "a", "b", "c")

    assert {"new": 3, "to_submit": 3, "seconds_at_limits": 1.5} == _counts(manifest)
    assert [manifest] == list(Path().iterdir())


def test_a_dry_run_is_a_plan() -> None:
    """`run --dry-run` prints what `plan` prints, and does nothing."""
    manifest = write_manifest(Path("m.yaml"), "a", "b")

    assert runner("plan", manifest) == runner("run", manifest, "--dry-run")
    assert runner("plan", manifest, "--json") == runner("run", manifest, "--dry-run", "--json")
    assert [manifest] == list(Path().iterdir())


def test_the_keys_of_json_are_fixed() -> None:
    """Programs rely on the keys and their order."""
    manifest = write_manifest(Path("m.yaml"), "a")

    assert KEYS == list(json.loads(runner("plan", manifest, "--json").stdout))


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
def test_action_for_each_state(state: State, counts: dict[str, float]) -> None:
    """Only jobs that were never sent are submitted; paid jobs are polled and downloaded."""
    manifest = write_manifest(Path("m.yaml"), "a")
    run_dir = make_run(Path("out"), manifest, {"a": state})

    assert counts == _counts(manifest, "-o", run_dir)


def test_removed_jobs_are_never_submitted() -> None:
    """Removed jobs that were paid for are still polled and downloaded."""
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


def test_a_changed_job_is_shown_with_the_change() -> None:
    """The plan shows what changed, and that a run would refuse to start."""
    manifest = write_manifest(Path("m.yaml"), "a", "b")
    run_dir = make_run(Path("out"), manifest, {"a": State.SUCCEEDED, "b": State.PENDING})
    manifest.write_text(manifest.read_text().replace("kitten ${n}", "cat ${n}"))

    result = runner("plan", manifest, "-o", run_dir)

    assert "changed: a (succeeded): prompt: 'kitten a' -> 'cat a'" in result.stdout
    assert "--on-changed" in result.stderr
    assert {"changed": 1, "to_submit": 1, "left_alone": 1, "seconds_at_limits": 0.5} == _counts(
        manifest, "-o", run_dir
    )


def _set(run_dir: Path, job_id: str, error_class: str) -> None:
    with Store(run_dir) as store, store.transaction() as connection:
        connection.execute("UPDATE jobs SET error_class = ? WHERE job_id = ?", (error_class, job_id))


def test_a_dry_run_does_what_its_options_say() -> None:
    """Which failed and changed jobs are submitted again is counted as the run would do it, and only chosen jobs are."""
    manifest = write_manifest(Path("m.yaml"), "bad", "mod", "old", "new")
    states = {"bad": State.FAILED, "mod": State.FAILED, "old": State.SUCCEEDED, "new": State.PENDING}
    run_dir = make_run(Path("out"), manifest, states)
    _set(run_dir, "bad", "remote_failed")
    _set(run_dir, "mod", "moderation")

    def to_submit(*options: str) -> int:
        found = runner("run", manifest, "-o", run_dir, "--dry-run", "--json", *options)
        return int(json.loads(found.stdout)["to_submit"])

    shown = runner("plan", manifest, "-o", run_dir).stdout
    assert (1, 2) == (to_submit(), to_submit("--retry-failed"))
    assert (0, 1) == (to_submit("--job", "bad"), to_submit("--job", "bad", "--retry-failed"))
    # Jobs and failed jobs are chosen by the same rule, which is that of the run.
    assert (2, 2) == (
        to_submit("--job", "[!mo]*", "--retry-failed"),
        to_submit("--job", "[^mo]*", "--retry-failed"),
    )
    assert "1  failed; --retry-failed or `runner rerun` submits it again" in shown
    assert "1  failed; only `runner rerun` with its --class submits it again" in shown
    typo = runner("run", manifest, "-o", run_dir, "--dry-run", "--job", "bed")
    assert (2, True) == (typo.exit_code, "did you mean 'bad'?" in typo.stderr)


def test_a_dry_run_with_invalid_and_changed_jobs() -> None:
    """With --skip-invalid the others are counted, and with --on-changed what it says is counted."""
    manifest = write_manifest(Path("m.yaml"), "a")
    run_dir = make_run(Path("out"), manifest, {"a": State.SUCCEEDED})
    invalid = "  - {id: b, request: {model: seedance-1-0-pro-250528, prompt: ' '}}\n"
    manifest.write_text(manifest.read_text().replace("kitten", "cat") + invalid)

    for on_changed, submitted in {"keep": 0, "rerun": 1}.items():
        options = ("--dry-run", "--skip-invalid", "--on-changed", on_changed)
        found = runner("run", manifest, "-o", run_dir, *options)
        assert ("1  invalid, recorded as failed" in found.stdout, "refuses" in found.stderr) == (True, False)
        counts = json.loads(runner("run", manifest, "-o", run_dir, *options, "--json").stdout)
        assert submitted == counts["to_submit"]

    with Store(run_dir) as store, store.transaction() as connection:
        connection.execute("UPDATE jobs SET state = 'failed', error_class = 'remote_failed'")
        connection.execute(
            "INSERT INTO attempts SELECT seq, 1, 0, 'accepted', 'task_1', 200, NULL, NULL FROM jobs"
        )
    again = runner("run", manifest, "-o", run_dir, *options[:2], "--on-changed", "keep", "--retry-failed")
    assert "1  failed, a new attempt, with its old request" in again.stdout


def test_a_dry_run_says_of_changed_jobs_what_the_run_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that may have a task for the old request stop a rerun, also if others are chosen; kept ones go on with theirs."""
    manifest = write_manifest(Path("m.yaml"), "done", "unclear", "slow")
    states = {"done": State.SUCCEEDED, "unclear": State.UNCERTAIN, "slow": State.SUBMITTED}
    run_dir = make_run(Path("out"), manifest, states)
    manifest.write_text(manifest.read_text().replace("kitten", "cat"))
    monkeypatch.setenv("POWERTOKENS_API_KEY", "key")
    chosen = ("--job", "done", "--base-url", "http://127.0.0.1:9", "--on-changed")
    arguments = ("run", manifest, "-o", run_dir, *chosen)

    refused = runner(*arguments, "rerun")
    planned = runner(*arguments, "rerun", "--dry-run")
    assert "2 jobs changed although a task for the old request may exist: unclear (unc" in refused.stderr
    assert refused.stderr.partition("]: ")[2] == planned.stderr.partition("refuses to start: ")[2]

    def counts(on_changed: str) -> tuple[int, ...]:
        found = json.loads(runner(*arguments[:4], "--on-changed", on_changed, "--dry-run", "--json").stdout)
        return tuple(found[key] for key in ("changed", "uncertain", "to_submit", "to_poll", "left_alone"))

    assert ((3, 1, 1, 0, 2), (3, 1, 0, 1, 2)) == (counts("rerun"), counts("keep"))


def test_a_dry_run_chooses_as_the_run_does() -> None:
    """A sample is of all jobs that meet the conditions, before --job; and a condition is met though --job leaves nothing."""
    manifest = write_manifest(Path("m.yaml"), "a", "b", "c", "d")

    def new(*options: str) -> object:
        return json.loads(runner("run", manifest, "--dry-run", "--json", *options).stdout)["new"]

    assert 1 == sum(new("--sample", "1", "--job", job_id) == 1 for job_id in "abcd")
    assert 0 == new("--where", "index<2", "--job", "d")


def test_a_job_with_a_task_id_is_polled() -> None:
    """A job with a task_id is not counted among the jobs to submit."""
    manifest = write_manifest(Path("m.yaml"), "a")
    manifest.write_text(manifest.read_text() + "    task_id: task_x\n")

    assert {"new": 1, "to_poll": 1} == _counts(manifest)


def test_estimate_considers_earlier_durations() -> None:
    """With four slots and tasks of a minute, eight jobs take two minutes, whatever the rate allows."""
    ids = [f"j{n}" for n in range(9)]
    manifest = write_manifest(Path("m.yaml"), *ids)
    run_dir = make_run(Path("out"), manifest, {"j0": State.SUCCEEDED}, generate_s=60.0)

    result = runner("plan", manifest, "-o", run_dir)

    assert "estimated time: 2m, limited by limits.in_flight 4" in result.stdout


def test_it_changes_nothing() -> None:
    """Not a byte of the run directory changes, and a second plan prints the same."""
    manifest = write_manifest(Path("m.yaml"), "a", "b")
    run_dir = make_run(Path("out"), manifest, {"a": State.SUCCEEDED})
    before = {path.name: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}

    first, second = (runner("plan", manifest, "-o", run_dir) for _ in range(2))

    assert first == second
    assert before == {path.name: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}


def test_it_works_while_a_run_is_active() -> None:
    """The plan ignores the lock of the run, and names its holder."""
    manifest = write_manifest(Path("m.yaml"), "a")
    run_dir = make_run(Path("out"), manifest, {"a": State.SUBMITTED})

    with Store(run_dir):
        result = runner("plan", manifest, "-o", run_dir)

    assert 0 == result.exit_code
    assert "a run is active (pid " in result.stdout


def test_show_prints_the_exact_requests() -> None:
    """--show N prints the first N bodies as they would be sent, with defaults applied."""
    manifest = write_manifest(Path("m.yaml"), "a", "b")

    result = runner("plan", manifest, "--show", "1")

    assert '"prompt": "kitten a"' in result.stdout
    assert "kitten b" not in result.stdout
    assert "a: submit, new (m.yaml:5:5)" in result.stdout


def test_a_local_picture_is_shown_by_its_digest() -> None:
    """The request shows the digest of a local file, not its data URI."""
    Path("a.png").write_bytes(png(400, 300))
    manifest = write_manifest(Path("m.yaml"), "a")
    manifest.write_text(manifest.read_text().replace("prompt:", "image: ./a.png, prompt:"))

    assert '"image": "data:image/png;bytes=' in runner("plan", manifest, "--show", "1").stdout


def test_verbose_shows_the_source_of_each_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option overrides the environment, the manifest and the default; the source is shown."""
    manifest = write_manifest(Path("m.yaml"), "a")
    monkeypatch.setenv("POWERTOKENS_BASE_URL", "https://env.example")

    settings = [" ".join(line.split()) for line in runner("plan", manifest, "-v").stdout.splitlines()]

    assert "gateway.base_url https://env.example (environment)" in settings
    assert "limits.submit 2/s (manifest)" in settings
    assert "limits.downloads 4 (default)" in settings
    flagged = runner("plan", manifest, "-v", "--base-url", "https://flag.example").stdout
    assert "gateway.base_url https://flag.example (flag)" in " ".join(flagged.split())


def test_verbose_shows_what_the_simulator_replaces() -> None:
    """Rates and waits of a simulated run are the simulator's and labeled so; with --real-time they are the manifest's."""
    manifest = write_manifest(Path("m.yaml"), "a")

    fast, real = (
        " ".join(runner("plan", manifest, "-v", "--simulate", *options).stdout.split())
        for options in ((), ("--real-time",))
    )

    for setting in ("limits.submit 20/s", "limits.poll 100/s", "poll.first 200ms", "poll.interval 200ms"):
        assert f"{setting} (simulator)" in fast
    assert "in place of the manifest's rates and waits (--real-time keeps them)" in fast
    assert "poll.timeout 1h (default)" in fast
    assert "limits.submit 2/s (manifest)" in real
    assert "poll.first 10s (default)" in real
    assert "simulator" not in real


def test_an_invalid_manifest_is_refused_as_a_run_would() -> None:
    """Each problem is printed once, the first 50 of them; the exit code is 2, and there are no counts."""
    manifest = write_manifest(Path("m.yaml"), "a")
    manifest.write_text(manifest.read_text().replace("prompt:", "promt:"))
    Path("rows.csv").write_text("id,seconds\n" + "".join(f"job-{n},99\n" for n in range(60)))
    request = "{model: seedance-1-5-pro-251215, prompt: A kitten, seconds: '${seconds}'}"
    Path("many.yaml").write_text(
        f"version: 1\njobs: [{{id: '${{id}}', from: rows.csv, request: {request}}}]\n"
    )

    result, others = runner("plan", manifest), runner("plan", "many.yaml")

    assert (2, "") == (result.exit_code, result.stdout)
    assert 1 == result.stderr.count("did you mean 'prompt'?"), result.stderr
    assert 50 == others.stderr.count("'99' is not allowed"), others.stderr
    assert "(these are the first 50)" in others.stderr


def test_real_and_simulated_runs_are_not_mixed() -> None:
    """Like a run, a plan refuses the directory of the other kind of run."""
    manifest = write_manifest(Path("m.yaml"), "a")
    run_dir = make_run(Path("out"), manifest, {})

    result = runner("plan", manifest, "-o", run_dir, "--simulate")

    assert 2 == result.exit_code
    assert "holds a real run, and this would be a simulated one" in result.stderr


def test_results_without_a_store_are_refused() -> None:
    """If every job were new, all of them could be paid for again."""
    manifest = write_manifest(Path("m.yaml"), "a")
    Path("out").mkdir()
    Path("out/results.jsonl").write_text("{}\n")

    result = runner("plan", manifest, "-o", "out")

    assert 2 == result.exit_code
    assert "error[store-missing]" in result.stderr


def test_takes_of_jobs_are_counted_at_most() -> None:
    """What a run may pay for by itself is shown before it begins; without `reroll` there is nothing to show."""
    manifest = write_manifest(Path("m.yaml"), "a", "b")
    model = "{model: seedance-1-0-pro-250528, unit: video, price: 0.5}"
    prices = f"prices: {{version: 1, checked: 2026-11-01, source: x, currency: USD, prices: [{model}]}}\n"
    reroll = "reroll: {output_moderation: 2, remote_failed: 1}\n"
    manifest.write_text(f"{reroll}{prices}{manifest.read_text()}")

    assert 8 == _counts(manifest)["submissions_at_most"]
    text = runner("plan", manifest).stdout
    assert "  up to 4 takes of a job (reroll), so at most 8 paid submissions\n" in text
    assert "cost: at most 1.00 USD for 2 jobs; at most 4.00 USD with all takes\n" in text


def test_conditions_and_samples() -> None:
    """A plan of the jobs that --where and --sample choose counts them alone, as the run does that follows."""
    manifest = write_manifest(Path("m.yaml"), "a", "b", "c", "d")
    run_dir = make_run(Path("out"), manifest, {"a": State.SUCCEEDED, "b": State.FAILED})

    def counts(*options: object) -> dict[str, float]:
        found = _counts(manifest, "-o", run_dir, *options)
        return {key: count for key, count in found.items() if key != "seconds_at_limits"}

    assert {"to_submit": 2} == counts("--where", "status=pending")
    assert {"done": 1, "left_alone": 1} == counts("--where", "job_id<c", "--where", "model=seedance*")
    assert 1 == counts("--where", "status=pending", "--sample", "1")["to_submit"]
    assert 3 == sum(counts("--sample", "3").values())
    none = runner("plan", manifest, "--where", "split=test")
    assert (2, True) == (none.exit_code, "no job of the run meets --where split=test" in none.stderr)
    typo = runner("plan", manifest, "--where", "promt=*")
    assert (2, True) == (typo.exit_code, "no job has 'promt'; did you mean 'prompt'?" in typo.stderr)

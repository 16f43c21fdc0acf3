"""What a run would do now, and why; nothing is sent, and nothing is written."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from runner.api import run_facts
from runner.api.options import EffectiveSettings, Overrides, apply_overrides, read_environment
from runner.api.validate import manifest_error
from runner.core.estimate import Estimate, estimate_duration
from runner.core.lifecycle import Event, State, Step, next_step, sources
from runner.core.model import JobSpec, Json
from runner.core.problem import Problem
from runner.core.settings import Limits
from runner.errors import StoreMissing
from runner.manifest.loader import Manifest, ProblemCollector, load
from runner.results.inline_media import replace_inline_media
from runner.store import query
from runner.store.database import DB_NAME, RESULTS_NAME, connect_empty, connect_reader, translated
from runner.store.lock import holder_of
from runner.store.sync import SyncReport, compare


class Action(StrEnum):
    """What a run does with a job."""

    SUBMIT = "submit"
    POLL = "poll"
    DOWNLOAD = "download"
    LEAVE = "leave alone"
    DONE = "done"


class Group(Struct, frozen=True):
    """Jobs of one model that meet the same for the same reason."""

    action: Action
    why: str
    model: str
    jobs: int


class PlannedJob(Struct, frozen=True):
    """
    A job that a run would do something for.

    Attributes:
        request: The body as it would be sent; what was a local file is shortened to its digest.
        place: Where the manifest asks for it.
    """

    job_id: str
    action: Action
    why: str
    request: Mapping[str, Json]
    place: str


class Plan(Struct, frozen=True, kw_only=True):
    """
    What a run of a manifest would do if it began now.

    Attributes:
        holder: The process that is at work in the run directory, or None.
        compared: How the manifest and the run directory differ. A run refuses to begin where jobs ``changed``.
        groups: All jobs, those that left the manifest included; what is to be done first.
        first: The first jobs that something is done for, as many as were asked for.
        estimate: For what is to be submitted; it knows of durations where jobs of this run have ended before.
        mean_generate_s: Those durations, by model.
    """

    name: str
    run_dir: Path
    holder: str | None
    effective: EffectiveSettings
    problems: ProblemCollector
    compared: SyncReport
    groups: tuple[Group, ...]
    first: tuple[PlannedJob, ...]
    done: int
    uncertain: int
    estimate: Estimate
    mean_generate_s: Mapping[str, float]

    def count(self, action: Action) -> int:
        """Count the jobs that meet an action."""
        return sum(group.jobs for group in self.groups if group.action is action)


def plan(
    manifest: Path | str,
    *,
    output: Path | None = None,
    show: int = 0,
    simulate: bool = False,
    variables: Mapping[str, Json] | None = None,
    overrides: Overrides = Overrides(),
    report: Callable[[Problem], None] | None = None,
) -> Plan:
    """
    Say what a run would do now. Memory stays flat, and a run may be going on in the directory.

    Args:
        show: So many jobs are given with their requests.
        report: Gets the manifest's problems, warnings included, as they are found.

    Raises:
        ManifestError: A run would refuse the manifest.
        RunDirError: A run could not use the directory.
        UsageError: The directory holds a simulated run and this is none, or the other way round.
    """
    problems = ProblemCollector()

    def note(problem: Problem) -> None:
        problems(problem)
        if report is not None:
            report(problem)

    path = Path(manifest)
    environ = read_environment(overrides, path.parent)
    today = datetime.now(UTC).date()
    loaded = load(path, note, variables=variables or {}, today=today)
    effective = apply_overrides(loaded.settings, overrides, environ)
    if simulate:
        # The simulator is only imported for its haste.
        from runner.api.simulate import with_simulator_speed

        effective = replace(effective, settings=with_simulator_speed(effective.settings, overrides))
    wished = Path(output) if output else run_facts.default_run_dir(loaded.name, simulate=simulate)
    run_dir = run_facts.expand_date(wished, today)
    with closing(_reader(run_dir, simulate=simulate)) as connection, translated(run_dir / DB_NAME):
        sorting = _GroupBuilder(show)
        compared = _compared(connection, loaded, problems, note, sorting)
        mean_generate_s = query.mean_generate_s(connection)
        limits = _learned(effective.settings.limits, query.meta(connection, run_facts.LEARNED))
    return Plan(
        name=loaded.name,
        run_dir=run_dir,
        holder=holder_of(run_dir),
        effective=effective,
        problems=problems,
        compared=compared,
        groups=tuple(sorting.groups()),
        first=tuple(sorting.first),
        done=sorting.states[State.SUCCEEDED],
        uncertain=sorting.states[State.UNCERTAIN] + sorting.states[State.SUBMITTING],
        estimate=estimate_duration(sorting.to_submit(), limits, mean_generate_s),
        mean_generate_s=mean_generate_s,
    )


def choose_action(state: State | None, *, task_id: str | None = None) -> tuple[Action, str]:
    """
    Say what a run does with a job of the manifest, and why.

    Args:
        state: As the run directory has it, or None where it does not have it.
        task_id: The task that the manifest names for the job.

    >>> choose_action(None)
    (<Action.SUBMIT: 'submit'>, 'new')
    >>> choose_action(State.TIMED_OUT)
    (<Action.POLL: 'poll'>, 'timed out before, its task is known')
    """
    if task_id is not None and (state is None or state in sources(Event.ATTACHED)):
        return Action.POLL, "the manifest names its task"
    if state is None:
        return Action.SUBMIT, "new"
    step = next_step(state)
    action = Action.LEAVE if step is None else _ACTIONS[step]
    return (Action.DONE if state is State.SUCCEEDED else action), _WHY[state]


_ACTIONS = {Step.SUBMIT: Action.SUBMIT, Step.POLL: Action.POLL, Step.DOWNLOAD: Action.DOWNLOAD}
_WHY = {
    State.PENDING: "not submitted yet",
    State.SUBMITTING: "being submitted, or in doubt where no process is at work",
    State.SUBMITTED: "submitted, its task is known",
    State.DOWNLOADING: "made, and not fetched yet",
    State.SUCCEEDED: "succeeded",
    State.FAILED: "failed; --retry-failed or `runner rerun` takes it up",
    State.UNCERTAIN: "in doubt until `runner resolve` settles it",
    State.TIMED_OUT: "timed out before, its task is known",
    State.UNDELIVERED: "made and paid for, and could not be fetched before",
}
_CHANGED = "its request is not the one that was submitted"
_REPLACED = "not submitted yet, and its request has changed"
_GONE = "it left the manifest"


class _GroupBuilder:
    """Takes the jobs in one by one, and keeps counts and the first few."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._groups: Counter[tuple[Action, str, str]] = Counter()
        self.first: list[PlannedJob] = []
        self.states: Counter[State] = Counter()

    def add(self, spec: JobSpec, word: str) -> None:
        """Take in a job of the manifest, with how the store knows it."""
        match word:
            case "changed":
                action, why = Action.LEAVE, _CHANGED
            case "replaced":
                action, why = Action.SUBMIT, _REPLACED
            case "new":
                action, why = choose_action(None, task_id=spec.task_id)
            case _:
                state = State(word)
                self.states[state] += 1
                action, why = choose_action(state, task_id=spec.task_id)
        self._groups[action, why, spec.model] += 1
        if len(self.first) < self._most and action in _ACTIONS.values():
            self.first.append(
                PlannedJob(spec.job_id, action, why, replace_inline_media(spec.request), str(spec.source))
            )

    def add_gone(self, state: State) -> None:
        """Take in a job that left the manifest: never submitted, but what was paid for is fetched."""
        self.states[state] += state is State.UNCERTAIN
        action, why = choose_action(state)
        if action in (Action.SUBMIT, Action.DONE):
            action = Action.LEAVE
        self._groups[action, f"{_GONE}; {why}" if action is not Action.LEAVE else _GONE, ""] += 1

    def groups(self) -> Iterator[Group]:
        """Give the groups: by what is done, and in the order in which they came."""
        for action in Action:
            for (of, why, model), jobs in self._groups.items():
                if of is action:
                    yield Group(action, why, model, jobs)

    def to_submit(self) -> dict[str, int]:
        """Count what is to be submitted, by model."""
        left: Counter[str] = Counter()
        for (action, _, model), jobs in self._groups.items():
            if action is Action.SUBMIT:
                left[model] += jobs
        return left


def _compared(
    connection: sqlite3.Connection,
    manifest: Manifest,
    problems: ProblemCollector,
    note: Callable[[Problem], None],
    sorting: _GroupBuilder,
) -> SyncReport:
    compared = compare(connection, manifest.jobs(note), each=sorting.add, gone=sorting.add_gone)
    if problems.errors:
        raise manifest_error(manifest, problems)
    return compared


def _reader(run_dir: Path, *, simulate: bool) -> sqlite3.Connection:
    """Open what is there; where no run began yet, every job is new."""
    path = run_dir / DB_NAME
    if not path.exists() or not path.stat().st_size:
        if (run_dir / RESULTS_NAME).exists():
            raise StoreMissing(
                f"{run_dir} has {RESULTS_NAME} but no {DB_NAME}: what was already paid for can't be known",
                hint=f"start a new directory from the results: runner rerun {run_dir / RESULTS_NAME} -o NEW",
            )
        return connect_empty()
    connection = connect_reader(run_dir)
    origin = query.meta(connection, run_facts.ORIGIN)
    try:
        if origin is not None:
            run_facts.require_same_kind(run_facts.RunOrigin.read(origin), run_dir, simulate=simulate)
    except BaseException:
        connection.close()
        raise
    return connection


def _learned(limits: Limits, text: str | None) -> Limits:
    """Lower the rates to what an earlier run found to be allowed."""
    learned = json.loads(text or "{}")
    models = {
        model: replace(own, submit_per_s=min(own.submit_per_s, learned.get(model, own.submit_per_s)))
        if own.submit_per_s is not None
        else own
        for model, own in limits.models.items()
    }
    least = min(limits.submit_per_s, learned.get("", limits.submit_per_s))
    return replace(limits, submit_per_s=least, models=models)

"""What a run would do now, and why; nothing is sent, and nothing is written."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path

from msgspec import Struct

from runner.api.config import apply_options, apply_simulator_speed, read_environment
from runner.api.job_choice import ChosenJobs
from runner.api.options import RunOptions
from runner.api.planned_uploads import PlannedUploads, UploadCounter
from runner.api.prices import cost_json, pricer_for, tables_used
from runner.api.run_facts import (
    LEARNED,
    default_run_dir,
    expand_date,
    output_root,
    read_facts,
    require_same_kind,
    series_of,
)
from runner.api.run_ledger import BudgetLeft, budgets_json, budgets_left, with_ledger
from runner.api.shards import check_shard_options, divided, own_jobs
from runner.api.simulate import check_simulation
from runner.api.state_dir import known_run, runs_elsewhere
from runner.api.validate import manifest_error
from runner.core.estimate import (
    CostEstimate,
    CostEstimateBuilder,
    Estimate,
    estimate_duration,
)
from runner.core.filenames import DB_NAME
from runner.core.lifecycle import Event, State, Step, next_step, sources
from runner.core.model import JobSpec, Json
from runner.core.prices import Billable, PriceTable, Quote, Unpriced
from runner.core.problem import Problem
from runner.core.settings import Settings
from runner.disk import AnyPath
from runner.manifest.loader import Manifest, ProblemCollector, load
from runner.results.inline_media import replace_inline_media
from runner.store import query
from runner.store.database import connect_empty, connect_reader, translated
from runner.store.evidence import require_current, require_database
from runner.store.lock import holder_of
from runner.store.sync import SyncReport, compare


class Action(StrEnum):
    """What a run does with a job."""

    SUBMIT = "submit"
    POLL = "poll"
    DOWNLOAD = "download"
    LEAVE = "skip"
    DONE = "done"


class Group(Struct, frozen=True):
    """Jobs of one model with the same action for the same reason."""

    action: Action
    why: str
    model: str
    jobs: int


class PlannedJob(Struct, frozen=True):
    """
    A job that a run would work on.

    Attributes:
        request: The body as it would be sent; a local file is shortened to its digest.
        place: Where the manifest defines it.
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
        holder: The process that is using the run directory, or None.
        settings: Those in force.
        sources: Where they come from; see `apply_options`.
        compared: How the manifest and the run directory differ. A run does not begin if jobs ``changed``.
        groups: All jobs, those that left the manifest included; those with something to do come first.
        first: The first jobs that a run would work on, as many as `show` says.
        elsewhere: Other directories in which the manifest was run; a run asks before it begins a new one.
        estimate: For the jobs to submit; it counts durations if jobs of this run have ended before.
        mean_generate_s: Those durations, by model.
        cost: Of the jobs to submit.
        tables: The price tables in use that have prices of their models.
        budgets: How much of each budget is left.
        today: In UTC; prices are those of this day.
        uploads: Local files to upload before anything is submitted; None if the manifest has no `inputs`.
    """

    name: str
    run_dir: Path
    holder: str | None
    settings: Settings
    sources: Mapping[str, str]
    problems: ProblemCollector
    compared: SyncReport
    groups: tuple[Group, ...]
    first: tuple[PlannedJob, ...]
    elsewhere: tuple[str, ...]
    done: int
    uncertain: int
    estimate: Estimate
    uploads: PlannedUploads | None = None
    mean_generate_s: Mapping[str, float]
    cost: CostEstimate
    tables: tuple[PriceTable, ...]
    budgets: tuple[BudgetLeft, ...]
    today: date

    def count(self, action: Action) -> int:
        """Count the jobs with an action."""
        return sum(group.jobs for group in self.groups if group.action is action)

    @property
    def submissions_at_most(self) -> int:
        """How many submissions are paid for at most, with all takes that `reroll` allows."""
        return self.count(Action.SUBMIT) * self.settings.most_takes


def plan(
    manifest: AnyPath,
    *,
    output: AnyPath | None = None,
    options: RunOptions = RunOptions(),
    show: int = 0,
    on_problem: Callable[[Problem], None] | None = None,
) -> Plan:
    """
    Return what a run with these options would do now, in constant memory; safe to use while a run is active.

    Args:
        show: How many jobs to return with their requests.
        on_problem: Gets the manifest's problems, warnings included, as they are found.

    Raises:
        ManifestError: A run would refuse the manifest.
        RunDirError: A run could not use the directory.
        UsageError: The directory holds a real run and this would be a simulated one, or the other way round.
    """
    problems = ProblemCollector(on_problem)
    check_simulation(options, simulate=options.simulate)
    path, place, simulate = Path(manifest), Path(output) if output else None, options.simulate
    environ = read_environment(options, path.parent)
    today = datetime.now(UTC).date()
    loaded = load(path, problems, variables=options.var, today=today, is_strict=options.strict)
    settings, sources = _in_force(loaded.settings, options, environ)
    settings, shard = with_ledger(settings, output_root(path), simulate=simulate), options.shard
    run_dir = expand_date(place or default_run_dir(path, loaded.name, simulate=simulate, shard=shard), today)
    own = known_run(run_dir, loaded.name, series_of(loaded.name_template, place), shard)
    with closing(_reader(run_dir, simulate=simulate)) as connection, translated(run_dir / DB_NAME):
        pricer = pricer_for(settings)
        uploads = UploadCounter(connection, settings)
        groups = _GroupBuilder(show, lambda request: pricer.price(request, today), uploads.add)
        compared = _compared(connection, loaded, problems, options, groups)
        budgets = budgets_left(settings, connection, run_dir)
        mean_generate_s = query.mean_generate_s(connection)
        learned = json.loads(query.meta(connection).get(LEARNED, "{}"))
    return Plan(
        name=loaded.name,
        run_dir=run_dir,
        holder=holder_of(run_dir),
        settings=settings,
        sources=sources,
        problems=problems,
        compared=compared,
        groups=tuple(groups.groups()),
        uploads=uploads.counted(),
        first=tuple(groups.first),
        elsewhere=() if options.simulate else tuple(run.run_dir for run in runs_elsewhere(path, own)),
        done=groups.states[State.SUCCEEDED],
        uncertain=groups.states[State.UNCERTAIN] + groups.states[State.SUBMITTING],
        estimate=groups.estimate(settings, mean_generate_s, learned),
        mean_generate_s=mean_generate_s,
        budgets=budgets,
        cost=(cost := groups.cost.estimate(settings.budget.unknown if settings.budget else None)),
        tables=tables_used(pricer, cost),
        today=today,
    )


def _compared(
    connection: sqlite3.Connection,
    manifest: Manifest,
    problems: ProblemCollector,
    options: RunOptions,
    groups: _GroupBuilder,
) -> SyncReport:
    """Count the jobs of a manifest, and of the directory, in groups."""
    chosen = ChosenJobs(options, groups.add, groups.add_gone)
    jobs = own_jobs(manifest.jobs(problems), options.shard)
    report = compare(connection, jobs, each=chosen.add, gone=chosen.gone)
    if problems.errors:
        raise manifest_error(manifest, problems)
    return chosen.report(report)


def _in_force(
    settings: Settings, options: RunOptions, environ: Mapping[str, str]
) -> tuple[Settings, Mapping[str, str]]:
    """Return the settings of a run or of its shard, and where they come from; see `apply_options`."""
    settings, sources = apply_options(settings, options, environ)
    check_shard_options(options, settings)
    settings = divided(settings, options.shard)
    if options.simulate and not options.real_time:
        return apply_simulator_speed(settings, sources, options)
    return settings, sources


def choose_action(state: State | None, *, task_id: str | None = None) -> tuple[Action, str]:
    """
    Return what a run does with a job of the manifest, and why.

    Args:
        state: The job's in the run directory; None if it is not there.
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
    State.SUBMITTING: "being submitted, or uncertain if no process is running",
    State.SUBMITTED: "submitted, its task is known",
    State.DOWNLOADING: "succeeded remotely, not downloaded yet",
    State.SUCCEEDED: "succeeded",
    State.FAILED: "failed; --retry-failed or `runner rerun` submits it again",
    State.UNCERTAIN: "uncertain until `runner resolve` resolves it",
    State.TIMED_OUT: "timed out before, its task is known",
    State.UNDELIVERED: "succeeded remotely, could not be downloaded before",
}
_CHANGED = "its request has changed since it was submitted"
_REPLACED = "not submitted yet, and its request has changed"
_GONE = "no longer in the manifest"


def plan_json(planned: Plan) -> dict[str, Json]:
    """Return the counts of a plan, and the requests that it shows, as `plan --json` prints them."""
    counts: dict[str, Json] = {
        "new": planned.compared.new,
        "done": planned.done,
        "changed": planned.compared.changed,
        "gone": planned.compared.gone,
        "uncertain": planned.uncertain,
        "to_submit": planned.count(Action.SUBMIT),
        "to_poll": planned.count(Action.POLL),
        "to_download": planned.count(Action.DOWNLOAD),
        "left_alone": planned.count(Action.LEAVE),
        "seconds_at_limits": round(planned.estimate.seconds, 1),
        "cost": {
            **cost_json(planned.cost),
            "prices": [
                {
                    "source": table.source,
                    "checked": table.checked.isoformat(),
                    "age_days": table.age_days(planned.today),
                }
                for table in planned.tables
            ],
            "budget": budgets_json(planned.budgets),
        },
    }
    if planned.uploads is not None:
        counts["uploads"] = {"files": planned.uploads.files, "bytes": planned.uploads.bytes}
    if planned.settings.reroll:
        counts["submissions_at_most"] = planned.submissions_at_most
    if planned.first:
        counts["requests"] = [
            {"job_id": job.job_id, "action": job.action, "why": job.why, "request": job.request}
            for job in planned.first
        ]
    return counts


class _GroupBuilder:
    """Counts jobs by action, reason and model, and keeps the first few."""

    def __init__(
        self,
        show: int,
        price: Callable[[Mapping[str, Json]], tuple[Billable, Quote | Unpriced]],
        count_uploads: Callable[[Mapping[str, Json]], None],
    ) -> None:
        self._show = show
        self._price = price
        self._count_uploads = count_uploads
        self.cost = CostEstimateBuilder()
        self._groups: Counter[tuple[Action, str, str]] = Counter()
        self.first: list[PlannedJob] = []
        self.states: Counter[State] = Counter()

    def add(self, spec: JobSpec, word: str) -> None:
        """Count a job of the manifest, by how the store knows it."""
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
        if action is Action.SUBMIT:
            self.cost.add(spec.model, *self._price(spec.request))
            self._count_uploads(spec.request)
        if len(self.first) < self._show and action in _ACTIONS.values():
            self.first.append(
                PlannedJob(spec.job_id, action, why, replace_inline_media(spec.request), str(spec.source))
            )

    def add_gone(self, state: State) -> None:
        """Count a job that left the manifest: it is not submitted, but downloaded if it was paid for."""
        self.states[state] += state is State.UNCERTAIN
        action, why = choose_action(state)
        if action in (Action.SUBMIT, Action.DONE):
            action = Action.LEAVE
        self._groups[action, f"{_GONE}; {why}" if action is not Action.LEAVE else _GONE, ""] += 1

    def groups(self) -> Iterator[Group]:
        """Yield the groups by action, and in the order in which they came."""
        for action in Action:
            for (group_action, why, model), jobs in self._groups.items():
                if group_action is action:
                    yield Group(action, why, model, jobs)

    def count(self, action: Action) -> int:
        """Count the jobs with an action."""
        return sum(jobs for (each, _, _), jobs in self._groups.items() if each is action)

    def estimate(
        self, settings: Settings, mean_generate_s: Mapping[str, float], learned: Mapping[str, float]
    ) -> Estimate:
        """Estimate how long the jobs to submit and to poll take."""
        to_submit: Counter[str] = Counter()
        for (action, _, model), jobs in self._groups.items():
            if action is Action.SUBMIT:
                to_submit[model] += jobs
        return estimate_duration(
            to_submit,
            settings.limits,
            mean_generate_s,
            first_poll_s=settings.poll.first_s,
            in_flight=self.count(Action.POLL),
            learned=learned,
        )


def _reader(run_dir: Path, *, simulate: bool) -> sqlite3.Connection:
    """Open the run's database, or an empty one if no run began yet."""
    path = run_dir / DB_NAME
    if not path.exists() or not path.stat().st_size:
        require_database(run_dir)
        return connect_empty()
    connection = connect_reader(run_dir)
    try:
        if holder_of(run_dir) is None:
            require_current(connection, run_dir)
        facts = read_facts(connection)
        if facts is not None:
            require_same_kind(facts.origin, run_dir, simulate=simulate)
    except BaseException:
        connection.close()
        raise
    return connection

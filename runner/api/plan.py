"""What a run would do now, and why; nothing is sent, and nothing is written."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, date, datetime
from itertools import chain
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from runner.api.config import apply_options, apply_simulator_speed, read_environment
from runner.api.job_choice import ChosenJobs, failed_to_retry
from runner.api.options import DEFAULT_OPTIONS, RunOptions
from runner.api.plan_groups import Action, Group, JobGroups, PlannedJob, PlannedUploads, UploadCounter
from runner.api.prices import cost_json, tables_used
from runner.api.run_facts import (
    LEARNED,
    default_run_dir,
    expand_date,
    known_run,
    output_root,
    read_facts,
    require_same_kind,
    series_of,
)
from runner.api.run_ledger import BudgetLeft, budgets_json, budgets_left, with_ledger
from runner.api.shards import check_shard_options, divided
from runner.api.simulate import check_simulation
from runner.api.state_dir import runs_elsewhere
from runner.api.validate import manifest_error
from runner.core.estimate import CostEstimate, Estimate
from runner.core.filenames import DB_NAME
from runner.core.lifecycle import State
from runner.core.model import JobSpec, Json
from runner.core.prices import PriceTable
from runner.core.problem import Problem
from runner.core.settings import Settings
from runner.disk import AnyPath
from runner.errors import JobsChanged
from runner.manifest.loader import Manifest, ProblemCollector, load
from runner.schema.price_tables import pricer_for
from runner.store import query
from runner.store.database import connect_empty, connect_reader, translated
from runner.store.freshness import require_current, require_database
from runner.store.lock import holder_of
from runner.store.sync import SyncReport, compare


class Plan(Struct, frozen=True, kw_only=True):
    """
    What a run of a manifest would do if it began now.

    Attributes:
        holder: The process that is using the run directory, or None.
        settings: Those in force.
        sources: Where they come from; see `apply_options`.
        compared: How the manifest and the run directory differ.
        refusal: Why a run does not begin, because of jobs that changed; None if it begins.
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
    refusal: JobsChanged | None
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
        return self.count(Action.SUBMIT) * self.settings.max_takes


def plan(
    manifest: AnyPath,
    *,
    output: AnyPath | None = None,
    options: RunOptions = DEFAULT_OPTIONS,
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
    path, place, simulate = Path(manifest), Path(output) if output else None, options.simulate
    check_simulation(options, simulate=simulate)
    environ, today = read_environment(options, path.parent), datetime.now(UTC).date()
    loaded = load(path, problems, variables=options.var, today=today, is_strict=options.strict)
    header, shard = loaded.header, options.shard
    settings, sources = _in_force(path, header.settings, options, environ)
    run_dir = place or default_run_dir(path, header.name, simulate=simulate, shard=shard)
    run_dir = expand_date(run_dir, today)
    own = known_run(run_dir, header.name, series_of(header.name_template, place), shard)
    with closing(_reader(run_dir, simulate=simulate)) as connection, translated(run_dir / DB_NAME):
        pricer = pricer_for(settings)
        uploads = UploadCounter(connection, settings)
        retried = failed_to_retry(connection, options.job)
        groups = JobGroups(options, retried, show, lambda request: pricer.price(request, today), uploads.add)
        compared, refusal = _compared(connection, loaded, problems, options, groups)
        budgets, mean_s = budgets_left(settings, connection, run_dir), query.mean_generate_s(connection)
        learned = json.loads(query.meta(connection).get(LEARNED, "{}"))
    return Plan(
        name=header.name,
        run_dir=run_dir,
        holder=holder_of(run_dir),
        settings=settings,
        sources=sources,
        problems=problems,
        compared=compared,
        refusal=refusal,
        groups=tuple(groups.groups()),
        uploads=uploads.counted(),
        first=tuple(groups.first),
        elsewhere=() if simulate else tuple(run.run_dir for run in runs_elsewhere(path, own)),
        done=groups.states[State.SUCCEEDED],
        uncertain=groups.states[State.UNCERTAIN] + groups.states[State.SUBMITTING],
        estimate=groups.estimate(settings, mean_s, learned),
        mean_generate_s=mean_s,
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
    groups: JobGroups,
) -> tuple[SyncReport, JobsChanged | None]:
    """Count the jobs of a manifest, and of the directory, in groups; with all jobs, whatever the options choose, a run begins."""
    chosen = ChosenJobs(connection, options, groups.add, groups.add_gone)
    invalid: dict[str, JobSpec] = {}

    def keep_invalid(spec: JobSpec, _: str) -> None:
        invalid[spec.job_id] = spec

    jobs = manifest.jobs(problems, keep_invalid if options.skip_invalid else None)
    shard = options.shard
    report = compare(
        connection,
        # Those that are invalid are known only when all others were read.
        (spec for spec in chain(jobs, invalid.values()) if shard is None or shard.has(spec.job_id)),
        each=lambda spec, word, state: chosen.add(spec, "invalid" if spec.job_id in invalid else word, state),
        gone=chosen.gone,
    )
    if problems.errors and not (options.skip_invalid and manifest.counts and manifest.counts.is_usable):
        raise manifest_error(manifest, problems)
    return chosen.report(report), report.refusal(options.on_changed)


def _in_force(
    manifest: Path, settings: Settings, options: RunOptions, environ: Mapping[str, str]
) -> tuple[Settings, Mapping[str, str]]:
    """Return the settings of a run or of its shard, and where they come from; see `apply_options`."""
    settings, sources = apply_options(settings, options, environ)
    check_shard_options(options, settings)
    if options.shard is not None:
        settings = divided(settings, options.shard)
    if options.simulate and not options.real_time:
        settings, sources = apply_simulator_speed(settings, sources, options)
    if (budget := settings.budget) is not None:
        budget = with_ledger(budget, output_root(manifest), simulate=options.simulate)
        settings = replace(settings, budget=budget)
    return settings, sources


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


def _reader(run_dir: Path, *, simulate: bool) -> sqlite3.Connection:
    """Open the run's database, or an empty one if no run began yet."""
    path = run_dir / DB_NAME
    if not path.exists() or not path.stat().st_size:
        require_database(run_dir)
        return connect_empty()
    connection = connect_reader(run_dir, with_temp_tables=True)
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

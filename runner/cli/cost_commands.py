"""`runner plan`, `runner prices` and `runner spend`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.api.options import RunOptions
from runner.api.prices import PriceInForce, PricesInForce, prices, prices_json
from runner.api.run_ledger import SpendReport, spend, spend_json
from runner.cli.console import echo_stderr, echo_stdout, show_warning, shown_if_slow
from runner.cli.displays import show_event
from runner.cli.param_types import MANIFEST, RUN_DIR, VARIABLE, with_options
from runner.cli.shared_options import REAL_TIME, SAMPLE, WHERE
from runner.core.money import format_money, from_nanos
from runner.core.prices import age_text
from runner.core.sanitize import escape_json, sanitize_line
from runner.core.units import format_count, format_duration, format_size

if TYPE_CHECKING:
    from runner.api.plan import Plan
    from runner.core.where import Condition


@click.command("plan")
@click.argument("manifest", type=MANIFEST)
@click.option("-o", "--output", metavar="DIR", type=RUN_DIR, help="Run directory, as for `run`.")
@click.option(
    "--show",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    help="Print the first N requests as they would be sent.",
)
@click.option("--simulate", is_flag=True, help="Plan a run with the simulated gateway.")
@REAL_TIME
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Show every setting and its source.")
@click.option("--base-url", metavar="URL", help="URL of the gateway; overrides the manifest.")
@click.option(
    "--env-file", type=click.Path(path_type=Path), help="File of variables to read instead of .env."
)
@with_options(WHERE, SAMPLE)
@VARIABLE
def plan_command(
    manifest: Path,
    output: Path | None,
    show: int,
    simulate: bool,
    real_time: bool,
    as_json: bool,
    verbose: bool,
    base_url: str | None,
    env_file: Path | None,
    var: dict[str, str],
    where: tuple[Condition, ...],
    sample: int | None,
) -> None:
    """
    Show what a run of MANIFEST would do now, and why.

    Nothing is sent and nothing is written. Safe to use while a run is active.
    """
    options = RunOptions(
        simulate=simulate,
        real_time=real_time,
        var=var,
        base_url=base_url,
        env_file=env_file,
        where=where,
        sample=sample,
    )
    show_plan(manifest, output, options, show=show, as_json=as_json, is_verbose=verbose)


def show_plan(
    manifest: Path, output: Path | None, options: RunOptions, *, show: int, as_json: bool, is_verbose: bool
) -> None:
    """Print what a run would do now."""
    from runner.api import config, plan, simulate

    on_problem = None if as_json else show_warning
    with shown_if_slow(f"checking {manifest} ..."):
        planned = plan.plan(manifest, output=output, show=show, options=options, on_problem=on_problem)
    if as_json:
        click.echo(json.dumps(plan.plan_json(planned)))
        return
    if planned.sources["gateway.base_url"] != "manifest" and not options.simulate:
        config.warn_unencrypted(planned.settings.base_url or "", show_event)
    settings = config.settings_lines(planned.settings, planned.sources) if is_verbose else ()
    for line in _plan_lines(planned, settings):
        echo_stdout(line)
    if options.simulate and not options.real_time:
        echo_stdout(f"\n{simulate.speed_line(planned.settings)}")
    if planned.elsewhere:
        echo_stderr(
            f"`runner run` asks before it starts, since the manifest was run in {planned.elsewhere[-1]}"
        )
    if options.limit is not None:
        echo_stderr(f"--limit: at most {format_count(options.limit, 'job')} of these in one process")
    if planned.refusal:
        echo_stderr(
            f"`runner run` refuses to start: {planned.refusal.message}\n  hint: {planned.refusal.hint}"
        )


def _plan_lines(planned: Plan, settings: Iterable[str]) -> Iterator[str]:
    jobs = planned.compared.jobs
    yield f"{planned.run_dir}: {format_count(jobs, 'job')}, {_run_state(planned)}"
    if settings:
        yield ""
        yield from settings
    yield ""
    yield from _groups(planned)
    if planned.settings.reroll and planned.submissions_at_most:
        takes = planned.settings.max_takes
        yield f"  up to {takes} takes of a job (reroll), so at most {planned.submissions_at_most:,} paid submissions"
    if planned.uploads is not None and planned.settings.inputs is not None:
        files, size = format_count(planned.uploads.files, "file"), format_size(planned.uploads.bytes)
        yield f"upload: {files} ({size}) to {planned.settings.inputs.upload}"
    for change in planned.compared.changes:
        yield f"  changed: {change}"
    for job in planned.first:
        yield ""
        yield f"{job.job_id}: {job.action}, {job.why} ({job.place})"
        yield escape_json(json.dumps(job.request, indent=2, ensure_ascii=False))
    yield from _cost(planned)
    yield from _time(planned)


def _run_state(planned: Plan) -> str:
    if planned.holder is not None:
        return f"a run is active ({planned.holder})"
    if all(group.action in ("skip", "done") for group in planned.groups):
        return "nothing to do"
    is_new = planned.compared.new == planned.compared.jobs and not planned.compared.gone
    return "nothing submitted yet" if is_new else "to be continued"


def _groups(planned: Plan) -> Iterator[str]:
    action = None
    for group in planned.groups:
        if group.action is not action:
            action = group.action
            yield f"{group.action}: {planned.count(group.action):,}"
        model = f"  {group.model}" if group.model else ""
        yield f"  {group.jobs:>9,}  {group.why}{model}"


def _cost(planned: Plan) -> Iterator[str]:
    cost = planned.cost
    if not cost.jobs:
        return
    yield ""
    yield "billed:"
    for units in cost.units:
        seconds = f"{units.seconds:,} s" if units.seconds else ""
        chosen = f"{units.open_ended:,} of a length that the model chooses" if units.open_ended else ""
        parts = ", ".join(filter(None, (format_count(units.clips, "clip"), seconds, chosen)))
        yield f"  {units.model}{f' in {units.size}' if units.size else ''}: {parts}"
    for each in cost.sums:
        all_takes = format_money(each.highest * planned.settings.max_takes, each.currency)
        again = f"; at most {all_takes} with all takes" if planned.settings.reroll else ""
        at_most = "at most " if each.expected == each.highest else ""
        yield f"cost: {at_most}{each} for {format_count(each.jobs, 'job')}{again}"
    for why, jobs in cost.unknown.items():
        yield f"unknown cost: {format_count(jobs, 'job')}; {sanitize_line(why, max_chars=200)}"
    for table in planned.tables:
        source = sanitize_line(table.source or "a table without a source", max_chars=200)
        yield f"  prices from {source}, {age_text(table.age_days(planned.today))}"
    for budget in planned.budgets:
        most = sum(each.highest for each in cost.sums if each.currency == budget.limit.currency)
        enough = "" if most <= budget.left.amount else ", not enough for all jobs: the run stops early"
        yield f"{budget}{enough}"
    if (canary := planned.settings.canary) is not None:
        yield f"canary: {format_count(canary.jobs, 'job')} first; the others once {canary.succeed} of them have a video"


def _time(planned: Plan) -> Iterator[str]:
    if not planned.estimate.limited_by:
        return
    yield ""
    time = format_duration(planned.estimate.seconds)
    about = "" if planned.estimate.is_known else "at least "
    yield f"estimated time: {about}{time}, limited by {planned.estimate.limited_by}"
    if not planned.estimate.is_known:
        yield "  no job of this run has finished yet, so only the limits are considered"
    for model, mean_generate_s in planned.mean_generate_s.items():
        yield f"  {model}: {format_duration(mean_generate_s)} per video so far"


_UNITS = {"second": "a second", "video": "a video", "million_tokens": "a million tokens"}


@click.command("prices")
@click.argument("manifest", required=False, type=MANIFEST)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def prices_command(manifest: Path | None, as_json: bool) -> None:
    """
    Show the prices that hold today, their age, and the models whose price is unknown.

    With MANIFEST, its own price table counts first.
    """
    today = datetime.now(UTC).date()
    found = prices(manifest, today=today)
    if as_json:
        click.echo(json.dumps(prices_json(found, today=today), indent=2, ensure_ascii=False))
        return
    for line in _price_lines(found, today):
        click.echo(line)


def _price_lines(found: PricesInForce, today: date) -> Iterator[str]:
    for table in found.tables:
        age = age_text(table.age_days(today))
        yield f"prices in {table.currency} from {sanitize_line(table.source or 'a table', max_chars=200)}, {age}"
    row = "  {:<34} {:<8} {:>12} {}".format
    yield ""
    yield row("model", "size", "price", "for")
    for each in found.prices:
        price = f"{each.price.normalize():f} {each.currency}"
        name = sanitize_line(each.model, max_chars=100)
        yield row(name, each.size or "any", price, f"{_UNITS[each.unit]}{_conditions(each)}")
    if found.unknown:
        yield ""
        yield "unknown:"
        for model, sizes in found.unknown.items():
            yield f"  {model}" + (f" in {', '.join(sizes)}" if sizes else "")


def _conditions(each: PriceInForce) -> str:
    row = each.row
    parts = [f"{key}: {json.dumps(value)}" for key, value in row.when.items()]
    parts += [f"until {row.until}"] if row.until else []
    parts += [row.note] if row.note else []
    return f" ({', '.join(parts)})" if parts else ""


_SPEND_KEYS = ("model", "day", "run")


def _key(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if value in _SPEND_KEYS or (value.startswith("tag:") and len(value) > 4):
        return value
    raise click.BadParameter(f"{value!r} is not one of {', '.join(_SPEND_KEYS)} and tag:KEY")


def _day(_ctx: click.Context, _param: click.Parameter, value: str | None) -> date | None:
    try:
        return None if value is None else date.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a day; write it as 2026-11-26") from None


@click.command("spend")
@click.argument("ledger", required=False, type=click.Path(path_type=Path))
@click.option(
    "--by", "key", metavar="model|day|run|tag:KEY", default="day", show_default=True, callback=_key,
    help="What to add up by; tag:KEY is a key of the jobs' metadata.",
)  # fmt: skip
@click.option(
    "--since", metavar="DATE", callback=_day, help="Only from this day (UTC) on, such as 2026-11-01."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def spend_command(ledger: Path | None, key: str, since: date | None, as_json: bool) -> None:
    """
    Show what the runs with a budget that share LEDGER have spent; by default output/spend.db, found as run directories are.

    A run without a budget is in no ledger: `runner status` shows what it has spent. Safe to use while runs are active.
    """
    found = spend(ledger, key=key, since=since)
    if as_json:
        click.echo(json.dumps(spend_json(found), indent=2, ensure_ascii=False))
        return
    if ledger is None:
        echo_stderr(str(found.path))
    for line in _spend_lines(found):
        click.echo(line)


def _spend_lines(found: SpendReport) -> Iterator[str]:
    for each in found.rows:
        name = sanitize_line(each.name or "(none)", max_chars=80)
        yield f"  {name:<34} {format_count(each.attempts, 'attempt'):>16}  {each.spend}"
    if not found.rows:
        yield "nothing was spent"
    for total in found.totals:
        yield f"{total}"
    for currency, amount in found.held.items():
        yield f"held by runs for jobs that they have not submitted: {format_money(from_nanos(amount), currency)}"

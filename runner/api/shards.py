"""One shard of a run: the options that it can't have, its part of the limits, and the file that says which one it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from runner.api.options import RunOptions
from runner.api.run_facts import RunFacts, RunOrigin
from runner.core.filenames import RUN_JSON_NAME
from runner.core.model import Json
from runner.core.sanitize import command_text
from runner.core.settings import Settings
from runner.core.sharding import SHARE_RULE, Shard, divide_budget, divide_limits
from runner.errors import RunDirError, UsageError
from runner.objects.base import FolderStore, ObjectExists, ObjectMissing, ObjectStore

_FORMAT = 1


def check_shard_options(options: RunOptions, settings: Settings) -> None:
    """
    Check that a shard can be run as it is asked for, before anything is done.

    Raises:
        UsageError: A limit can't be divided, or an option counts jobs of the whole run.
    """
    if options.shard is None:
        if options.per_shard:
            raise UsageError("--per-shard needs --shard", hint="leave it out")
        return
    if options.shard.count == 1:
        return
    budget = divided(settings, options.shard).budget
    for name, value in (
        ("--max-cost", options.max_cost),
        ("budget.day", None if budget is None else budget.day),
        ("budget.month", None if budget is None else budget.month),
        ("--limit", options.limit),
        ("--sample", options.sample),
        ("--max-failures", options.max_failures),
        ("budget", settings.budget),
    ):
        if value not in (None, "off") and not options.per_shard:
            way = "to divide it" if name == "budget" else f"if {name} is meant for each shard alone"
            raise UsageError(
                f"{name} can't be counted over all shards of a run", hint=f"add --per-shard {way}"
            )


def divided(settings: Settings, shard: Shard) -> Settings:
    """
    Return settings with a shard's part of the limits and of the run's budget.

    Raises:
        UsageError: A limit can't be divided by the number of shards.
    """
    try:
        budget = None if settings.budget is None else divide_budget(settings.budget, shard)
        return replace(settings, limits=divide_limits(settings.limits, shard), budget=budget)
    except ValueError as error:
        raise UsageError(
            str(error), hint=f"use {shard.count} tasks at least, or fewer shards in a new run directory"
        ) from None


def require_same_shard(origin: RunOrigin, run_dir: Path, shard: Shard | None) -> None:
    """
    Check that a directory continues as the shard that it is.

    Raises:
        UsageError: It holds another shard, or the whole run: jobs of both would be paid for twice.
    """
    if origin.missing_shards:
        raise UsageError(
            f"{run_dir} was merged from some shards only, and others have the rest of the manifest's jobs",
            hint=f"continue with what is in it: {command_text('runner', 'resume', run_dir)}; or merge all shards",
        )
    if origin.shard == shard:
        return
    held = "a run without shards" if origin.shard is None else f"shard {origin.shard} of its run"
    wanted = "the whole run" if shard is None else f"shard {shard}"
    way = "without --shard" if origin.shard is None else f"with --shard {origin.shard}"
    raise UsageError(
        f"{run_dir} holds {held}, and this would be {wanted}",
        hint=f"continue {way}; for other shards choose another directory with -o, and start a run with "
        "another number of shards from nothing (a job would be in two shards)",
    )


def shard_facts(facts: RunFacts, *, count: int) -> dict[str, Json]:
    """Return what all shards of a run have in common, as it is written to ``run.json``."""
    return {
        "format": _FORMAT,
        "run": facts.settings.name,
        "gateway": facts.gateway,
        "shards": count,
        "share": SHARE_RULE,
    }


def claim_run_dir(run_dir: Path, facts: RunFacts, shard: Shard) -> None:
    """
    Write which shard of which run a directory holds, or check that it still says so.

    Raises:
        RunDirError: Its ``run.json`` says something else.
        ObjectStoreError: It can't be written.
    """
    wanted = {**shard_facts(facts, count=shard.count), "shard": shard.index}
    claim(FolderStore(str(run_dir)), wanted)


def claim(store: ObjectStore, wanted: Mapping[str, Json]) -> Mapping[str, Json]:
    """
    Create ``run.json``, once for all processes, or check the one that is there; return what it holds.

    Raises:
        RunDirError: It holds another run, or one with another number of shards.
        ObjectStoreError: The store can't be used.
    """
    for _ in range(3):
        with suppress(ObjectExists):
            store.create(RUN_JSON_NAME, json.dumps(wanted).encode() + b"\n")
        try:
            held = json.loads(store.get(RUN_JSON_NAME))
        except ObjectMissing:
            # Of two that created it at once, S3 may have refused both.
            continue
        except ValueError:
            held = None
        return _require_same(store.url, held, wanted)
    raise RunDirError(f"{store.url}/{RUN_JSON_NAME} can't be created", hint="try again")


def _require_same(url: str, held: Json, wanted: Mapping[str, Json]) -> Mapping[str, Json]:
    if not isinstance(held, dict):
        raise RunDirError(
            f"{url}/{RUN_JSON_NAME} is not what this program wrote", hint="choose another place"
        )
    for key in ("format", "run", "shards", "shard", "share"):
        if held.get(key) != wanted.get(key):
            raise RunDirError(
                f"{url} has {key} {held.get(key)!r}, and this would be {key} {wanted.get(key)!r}",
                hint="continue as it was begun: a run keeps its name and its number of shards; "
                "or choose another place",
            )
    return held

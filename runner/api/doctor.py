"""Check whether this machine, the key and the gateway are ready for a run; free of charge."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from runner.api.asset_store import open_assets
from runner.api.config import apply_options, find_keys, read_environment
from runner.api.inputs import try_inputs
from runner.api.options import DEFAULT_OPTIONS, RunOptions
from runner.api.run_facts import default_run_dir
from runner.api.validate import manifest_error
from runner.connector import Proxies, shown_proxy
from runner.core.addresses import unencrypted_host
from runner.core.model import FailureClass
from runner.core.outcomes import Probed
from runner.core.settings import DEFAULT_BASE_URL, TEST_HOST, Inputs, Settings, Timeouts
from runner.core.stop import stop_for_unreachable_gateway
from runner.core.units import format_duration, format_size
from runner.disk import AnyPath
from runner.errors import RunnerError, install_hint
from runner.gateway.client import GatewayClient
from runner.gateway.credentials import ApiKey
from runner.manifest.loader import ProblemCollector, load
from runner.objects import open_store, require_uploads
from runner.store.journal import PROBE_REQUESTS, require_conditional_create

MIN_PYTHON = (3, 11)
FAST_PACKAGES = ("uvloop",)
MAX_SKEW_S = 60.0
MIN_FREE_BYTES = 5_000_000_000
SLOW_FSYNC_S = 0.05
SPARE_FILES = 100
"""Open files that the program needs besides one connection for each request in progress."""
PROBE_TIMEOUTS = Timeouts(connect_s=10.0, poll_s=15.0)
_FSYNCS = 5


class CheckVerdict(StrEnum):
    """The result of a check; only with a problem a run can't work."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Check(Struct, frozen=True):
    """
    One check.

    Attributes:
        name: A stable word.
        message: What was found, in a sentence.
        hint: What to do about it, or None.
    """

    name: str
    verdict: CheckVerdict
    message: str
    hint: str | None = None


def doctor(
    manifest: AnyPath | None = None,
    *,
    output: AnyPath | None = None,
    options: RunOptions = DEFAULT_OPTIONS,
    wall_clock: Callable[[], float] = time.time,
) -> Iterator[Check]:
    """
    Check everything that a run needs, one after the other.

    The only request is GET /v1/models, which is free (fact F6).

    Args:
        manifest: Its settings and models are checked too.
        output: The folder that run directories are created in; by default the manifest's.
        options: With a journal or a store for assets, these are checked too: a probe is written there, and deleted.
    """
    yield _python()
    yield _packages()
    settings, models = Settings(name="doctor"), frozenset[str]()
    manifest = None if manifest is None else Path(manifest)
    folder = Path() if manifest is None else manifest.parent
    try:
        environ = read_environment(options, folder)
    except RunnerError as error:
        yield _failed("env-file", error)
        return
    if manifest is not None:
        try:
            settings, models = _read(manifest)
            yield Check("manifest", CheckVerdict.OK, f"{manifest} has no errors")
        except RunnerError as error:
            yield _failed("manifest", error)
    try:
        settings, sources = apply_options(settings, options, environ)
    except RunnerError as error:
        yield _failed("address", error)
        return
    base_url = settings.base_url or DEFAULT_BASE_URL
    yield _address(base_url, sources["gateway.base_url"])
    try:
        keys = find_keys(settings, environ, simulate=False)
    except RunnerError as error:
        yield _failed("key", error)
    else:
        yield from _gateway(base_url, keys.keys, environ, models, wall_clock)
        if settings.inputs is not None:
            yield check_inputs(settings.inputs, base_url, keys.keys[0].secret, environ)
    default = default_run_dir(manifest or Path("manifest"), "any", simulate=False).parent
    if options.journal is not None:
        yield _check_journal(options.journal, environ)
    if options.assets is not None:
        yield _check_assets(options.assets, environ)
    yield from _disk(default if output is None else Path(output))
    yield _open_files(settings)


def check_inputs(inputs: Inputs, base_url: str, key: str, environ: Mapping[str, str]) -> Check:
    """Check whether local files can be uploaded to where the manifest says."""
    try:
        try_inputs(inputs, base_url, key, environ, PROBE_TIMEOUTS)
    except RunnerError as error:
        return _failed("inputs", error)
    return Check("inputs", CheckVerdict.OK, f"local files can be uploaded to {inputs.upload}")


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < MIN_PYTHON:
        return Check(
            "python", CheckVerdict.PROBLEM, f"this is Python {version}", "install Python 3.11 or newer"
        )
    return Check("python", CheckVerdict.OK, f"Python {version}, SQLite {sqlite3.sqlite_version}")


def _packages() -> Check:
    missing = [name for name in FAST_PACKAGES if importlib.util.find_spec(name) is None]
    if not missing:
        return Check("packages", CheckVerdict.OK, f"{' and '.join(FAST_PACKAGES)} are installed")
    return Check(
        "packages",
        CheckVerdict.WARNING,
        f"optional packages for more speed are not installed: {', '.join(missing)}",
        install_hint("fast"),
    )


def _read(manifest: Path) -> tuple[Settings, frozenset[str]]:
    problems = ProblemCollector()
    loaded = load(manifest, problems, variables={}, today=datetime.now(UTC).date())
    models = frozenset(spec.model for spec in loaded.jobs(problems))
    if problems.errors:
        raise manifest_error(loaded, problems)
    return loaded.header.settings, models


def _failed(name: str, error: RunnerError) -> Check:
    first = f": {error.problems[0]}" if error.problems else ""
    return Check(name, CheckVerdict.PROBLEM, f"{error.message}{first}", error.hint)


def _address(base_url: str, source: str) -> Check:
    host = urlsplit(base_url).hostname
    if host == TEST_HOST:
        return Check(
            "address",
            CheckVerdict.WARNING,
            f"{host} is the vendor's test environment ({source})",
            f"use {DEFAULT_BASE_URL}; one of the API's documents shows the test address by mistake",
        )
    if (exposed := unencrypted_host(base_url)) is not None:
        return Check(
            "address",
            CheckVerdict.WARNING,
            f"the key travels to {exposed} unencrypted ({source})",
            "use https://",
        )
    return Check("address", CheckVerdict.OK, f"the gateway is {base_url} ({source})")


def _gateway(
    base_url: str,
    keys: tuple[ApiKey, ...],
    environ: Mapping[str, str],
    models: frozenset[str],
    wall_clock: Callable[[], float],
) -> Iterator[Check]:
    try:
        proxy = Proxies.from_environ(environ).for_url(base_url)
        probes = asyncio.run(_probe(base_url, keys, proxy))
    except RunnerError as error:
        yield _failed("gateway", error)
        return
    if proxy is not None:
        message = f"requests to the gateway go through {shown_proxy(proxy)}, and downloads by the same rule"
        yield Check("proxy", CheckVerdict.OK, message)
    first = probes[0]
    if not first.is_reachable:
        why = first.failure.message if first.failure else "it did not say why"
        stop = stop_for_unreachable_gateway(why)
        yield Check("gateway", CheckVerdict.PROBLEM, stop.message, stop.hint)
        return
    yield Check("gateway", CheckVerdict.OK, "the gateway answers")
    for key, probed in zip(keys, probes, strict=True):
        yield _key(key, probed)
    yield _clock(first.server_at, wall_clock())
    if models and all(probed.failure is None for probed in probes):
        yield _models(models, frozenset().union(*(probed.models for probed in probes)))


async def _probe(base_url: str, keys: tuple[ApiKey, ...], proxy: str | None) -> list[Probed]:
    async with GatewayClient(base_url, PROBE_TIMEOUTS, proxy=proxy) as gateway:
        return [await gateway.probe(key.secret) for key in keys]


def _key(key: ApiKey, probed: Probed) -> Check:
    name = f"the key with the fingerprint {key.fingerprint}"
    failure = probed.failure
    if failure is None:
        return Check("key", CheckVerdict.OK, f"{name} is accepted")
    if failure.cls is FailureClass.QUOTA:
        return Check(
            "key",
            CheckVerdict.PROBLEM,
            f"{name} is out of credit: {failure.message}",
            "add credit to the account",
        )
    if failure.cls in (FailureClass.AUTH, FailureClass.FORBIDDEN):
        return Check(
            "key",
            CheckVerdict.PROBLEM,
            f"{name} is refused: {failure.message}",
            "set a key of this gateway's console",
        )
    return Check(
        "key",
        CheckVerdict.WARNING,
        f"{name} could not be checked: {failure.message}",
        "try again in a minute",
    )


def _clock(server_at: float | None, now_at: float) -> Check:
    if server_at is None:
        return Check("clock", CheckVerdict.WARNING, "the gateway's answer has no date", None)
    skew_s = abs(now_at - server_at)
    if skew_s <= MAX_SKEW_S:
        return Check("clock", CheckVerdict.OK, "this clock agrees with the gateway's")
    way = "ahead of" if now_at > server_at else "behind"
    return Check(
        "clock",
        CheckVerdict.WARNING,
        f"this clock is {format_duration(skew_s)} {way} the gateway's",
        "set it (timedatectl set-ntp true): times in the results, and waits until a date, depend on it",
    )


def _models(wanted: frozenset[str], offered: frozenset[str]) -> Check:
    if not offered:
        return Check(
            "models", CheckVerdict.WARNING, "the gateway did not list the models that the key may use", None
        )
    missing = sorted(wanted - offered)
    if not missing:
        return Check("models", CheckVerdict.OK, "every model of the manifest is offered")
    return Check(
        "models",
        CheckVerdict.WARNING,
        f"the gateway's list does not have {', '.join(missing)}",
        "ask for access, or check whether the list is complete: these jobs may be refused",
    )


def _check_journal(url: str, environ: Mapping[str, str]) -> Check:
    began = time.perf_counter()
    try:
        require_conditional_create(open_store(url, environ))
    except RunnerError as error:
        return _failed("journal", error)
    each_s = (time.perf_counter() - began) / PROBE_REQUESTS
    message = f"{url} keeps a second process from replacing what a first one created; a request takes {format_duration(each_s)}"
    return Check("journal", CheckVerdict.OK, message)


def _check_assets(url: str, environ: Mapping[str, str]) -> Check:
    try:
        require_uploads(open_assets(url, environ))
    except RunnerError as error:
        return _failed("assets", error)
    return Check("assets", CheckVerdict.OK, f"videos can be uploaded to {url}")


def _disk(output: Path) -> Iterator[Check]:
    """Check the file system of the folder for run directories, or of its nearest parent that exists."""
    folder = next(place for place in (output, *output.resolve().parents) if place.is_dir())
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        yield Check(
            "disk",
            CheckVerdict.WARNING,
            f"{format_size(free)} are free in {folder.resolve()}",
            "free some space: a video takes 2 to 20 MB, and a run stops cleanly when the disk is full",
        )
    else:
        yield Check("disk", CheckVerdict.OK, f"{format_size(free)} are free in {folder.resolve()}")
    try:
        with tempfile.TemporaryDirectory(prefix=".runner-doctor-", dir=folder) as place:
            yield _durability(Path(place))
            yield _journal(Path(place))
    except OSError as error:
        yield Check(
            "disk",
            CheckVerdict.PROBLEM,
            f"{folder.resolve()} can't be written: {error.strerror or error}",
            "choose another folder with -o",
        )


def _durability(folder: Path) -> Check:
    began = time.perf_counter()
    with (folder / "fsync").open("wb") as file:
        for _ in range(_FSYNCS):
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    each_s = (time.perf_counter() - began) / _FSYNCS
    message = f"a durable write takes {format_duration(each_s) if each_s >= 0.001 else 'less than 1ms'}"
    if each_s <= SLOW_FSYNC_S:
        return Check("fsync", CheckVerdict.OK, message)
    return Check("fsync", CheckVerdict.WARNING, message, "a local disk would be faster than this one")


def _journal(folder: Path) -> Check:
    with closing(sqlite3.connect(folder / "wal.db")) as connection:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            connection.execute("CREATE TABLE t (x)")
        except sqlite3.OperationalError:
            mode = "none"
    if mode == "wal":
        return Check("sqlite", CheckVerdict.OK, "SQLite's write-ahead log works here")
    return Check(
        "sqlite",
        CheckVerdict.WARNING,
        "this file system does not support SQLite's write-ahead log, so writing to run.db is slower",
        "put run directories on a local disk",
    )


def _open_files(settings: Settings) -> Check:
    try:
        import resource
    except ImportError:
        return Check("open-files", CheckVerdict.OK, "this system sets no limit on open files")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.limits.in_flight + 2 * settings.limits.downloads + SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return Check("open-files", CheckVerdict.OK, f"{soft:,} files may be open, {needed:,} are needed")
    return Check(
        "open-files",
        CheckVerdict.PROBLEM,
        f"only {soft:,} files may be open, and {needed:,} are needed",
        f"ulimit -n {needed}",
    )

"""
All that the simulator knows while it runs: its tasks, its clock, and who has asked for what.

Nothing here reads or writes a socket; the two origins ask it what is true and say it in HTTP.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from runner.core.model import Json
from runner.core.problem import Finding, Severity
from runner.schema import catalog
from runner.simulator.faults import Fault, Place, fault_at
from runner.simulator.ledger import Ledger, LedgerEntry
from runner.simulator.scenario import JobInfo, RateLimit, Scenario, draw
from runner.simulator.task import Task
from runner.simulator.video import video_spec

_ASKED = ("size", "ratio", "seconds", "return_last_frame", "generate_audio", "draft")
_SECRET = b"a simulated signature protects nothing"


class PendingSubmission(Struct):
    """A job whose POST was not accepted so far, however often it was sent."""

    arrival: JobInfo
    rule: int | None = None
    turns: int = 0


class SimulatorState:
    """
    The simulator's state.

    Args:
        clock: Seconds that never go back; real ones unless a test moves them.
    """

    def __init__(self, scenario: Scenario, ledger: Ledger, clock: Callable[[], float]) -> None:
        self.scenario = scenario
        self.ledger = ledger
        self.tasks: dict[str, Task] = {}
        self._clock = clock
        self._started = clock()
        # Tasks carry times since 1970, which advance with the clock that was given.
        self._epoch = time.time() - self._started
        self._applications: dict[str, PendingSubmission] = {}
        self._jobs = 0
        self._requests = 0
        self._submit_limit, self._poll_limit = _limits(scenario.rate_limit)
        for entry in ledger.accepted:
            self._take_up(entry)

    @property
    def now(self) -> float:
        """Seconds since 1970."""
        return self._epoch + self._clock()

    def new_request_id(self) -> str:
        """Return an id for a request, such as the gateway puts into its errors."""
        self._requests += 1
        stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(self.now))
        return f"{stamp}{self._requests:09d}sim"

    def outage(self) -> Fault | None:
        """Return the answer that the whole API gives now, if it does not work."""
        return self.scenario.outage_at(self._clock() - self._started)

    def accepts_key(self, key: str) -> bool:
        """Say whether a key is known."""
        return bool(key) and (not self.scenario.keys or key in self.scenario.keys)

    def lets_submit(self) -> bool:
        """Say whether the rate limit lets one more POST through, and count it if so."""
        return self._submit_limit.take(self._clock())

    def lets_poll(self) -> bool:
        """Say the same of a query, and count it."""
        return self._poll_limit.take(self._clock())

    def application(self, request: Mapping[str, Json], key: str) -> tuple[PendingSubmission, Fault | None]:
        """Return the job that a valid POST is for, and the fault that befalls this POST."""
        digest = digest_of(request)
        application = self._applications.get(digest)
        if application is None:
            self._jobs += 1
            application = PendingSubmission(_arrival(self._jobs, digest, request, key))
            self._applications[digest] = application
        # The key may be another one than at the last try.
        application.arrival = _arrival(application.arrival.number, digest, request, key)
        application.rule = self.scenario.rule_for(application.arrival)
        faults = self.scenario.rule(application.rule).faults
        fault = fault_at(faults.get(Place.SUBMIT, ()), application.turns)
        application.turns += 1
        return application, fault

    def accept(self, application: PendingSubmission, request: Mapping[str, Json]) -> Task:
        """Make a task, and enter it in the ledger: from here on it is paid for."""
        arrival = application.arrival
        # The next POST of the same request is another job.
        del self._applications[arrival.digest]
        span = self.scenario.rule(application.rule).task.generate_s or self.scenario.generate_s
        found = self.scenario.job_label.search(arrival.prompt) if self.scenario.job_label else None
        entry = LedgerEntry(
            digest=arrival.digest,
            model=arrival.model,
            prompt=arrival.prompt,
            label=found[1] if found else None,
            key=fingerprint(arrival.key),
            task_id=_task_id(arrival.digest, len(self.ledger.accepted), self._epoch),
            at=self.now,
            asked={name: request[name] for name in _ASKED if name in request},
            number=arrival.number,
            rule=application.rule,
            generate_s=span.at(draw(self.scenario.seed, arrival.digest, "generate_s")),
        )
        self.ledger.record(entry)
        return self._take_up(entry)

    def find(self, task_id: str) -> Task | None:
        """Return the task of an id as queries know it, or None."""
        return self.tasks.get(task_id)

    def signed_path(self, task: Task, name: str) -> str:
        """Return a fresh address of one of a task's assets, without its origin."""
        task.issued += 1
        path = f"/{task.task_id}/{name}"
        expires = int(self.now + self.scenario.url_valid_s)
        signature = _signature(path, expires, task.issued)
        return f"{path}?Expires={expires}&Version={task.issued}&Signature={signature}"

    def why_refused(self, task: Task, path: str, query: Mapping[str, str]) -> str | None:
        """Return why a signed address is not served, or None where it is."""
        expires, version = _number(query.get("Expires")), _number(query.get("Version"))
        if not hmac.compare_digest(_signature(path, expires, version), query.get("Signature", "")):
            return "SignatureDoesNotMatch"
        if expires < self.now or version <= task.revoked:
            return "AccessDenied: Request has expired"
        return None

    def _take_up(self, entry: LedgerEntry) -> Task:
        """Make the task of an entry, new or from the ledger's file."""
        task = Task(
            task_id=entry.task_id,
            model=entry.model,
            video=video_spec({"model": entry.model, **entry.asked}, entry.digest),
            asked=entry.asked,
            rule=self.scenario.rule(entry.rule),
            created_at=entry.at,
            generate_s=entry.generate_s,
        )
        self._jobs = max(self._jobs, entry.number)
        self.tasks[task.task_id] = task
        return task


class _Limit:
    """Lets through so many requests a second, evenly, with a burst."""

    def __init__(self, per_s: float | None, burst: int) -> None:
        self._interval = 1 / per_s if per_s else 0.0
        self._slack = self._interval * (burst - 1)
        self._due = 0.0

    def take(self, now: float) -> bool:
        """Say whether a request that arrives now is let through, and count it if so."""
        if now < self._due - self._slack:
            return False
        self._due = max(self._due, now) + self._interval
        return True


def _limits(limit: RateLimit) -> tuple[_Limit, _Limit]:
    return _Limit(limit.submit_per_s, limit.burst), _Limit(limit.poll_per_s, limit.burst)


def why_invalid(request: Any) -> str | None:
    """
    Hold a body against the model's document; return what is wrong, or None.

    Keys that the document does not list are let pass, as the gateway does: the vendor adds fields often.
    """
    if not isinstance(request, dict):
        return "the body is not a JSON object"
    schemas = catalog.load()
    schema = schemas.select(request)
    if isinstance(schema, Finding):
        # The document of first frames is a view for models of any name.
        if not isinstance(request.get("model"), str) or "image" not in request:
            return schema.message
        schema = schemas.schema("first-frame-video")
    known = schema.document["properties"]
    listed = request if request.keys() <= known.keys() else {k: v for k, v in request.items() if k in known}
    if schema.is_clean(listed):
        return None
    wrong = [finding for finding in schema.findings(listed) if finding.severity is Severity.ERROR]
    return "; ".join(finding.message for finding in wrong) or None


def _arrival(number: int, digest: str, request: Mapping[str, Json], key: str) -> JobInfo:
    return JobInfo(number, digest, request["model"], request.get("prompt") or "", key, request.get("seed"))


def digest_of(request: Mapping[str, Json]) -> str:
    """Return the digest of a request as the ledger has it: of its JSON with sorted keys."""
    text = json.dumps(request, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(key: str) -> str:
    """Return what may be kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:12]


def _task_id(digest: str, number: int, epoch: float) -> str:
    """Return a task id like the gateway's: ``task_`` and 32 characters, never the same twice."""
    return f"task_{hashlib.sha256(f'{digest}/{number}/{epoch}'.encode()).hexdigest()[:32]}"


def _signature(path: str, expires: int, version: int) -> str:
    return hmac.new(_SECRET, f"{path}/{expires}/{version}".encode(), "sha256").hexdigest()[:40]


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 16 else 0

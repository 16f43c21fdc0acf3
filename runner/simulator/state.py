"""
What the simulator knows while it runs: its tasks, its clock, and the jobs that are not accepted yet.

Nothing here reads or writes a socket.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from runner.core.cost import charged, reserve
from runner.core.model import Json
from runner.core.money import nanos_text
from runner.core.prices import Unpriced, utc_day
from runner.core.problem import Finding, Severity
from runner.schema import catalog
from runner.schema.price_tables import Pricer
from runner.simulator.faults import Fault, RequestKind, fault_at
from runner.simulator.scenario import JobInfo, Scenario, seeded_draw
from runner.simulator.submission_ledger import AcceptedSubmission, SubmissionLedger
from runner.simulator.task_shapes import FROM_FORM, Task, tokens_used
from runner.simulator.video import video_spec

_VIDEO_OPTIONS = (
    "size",
    "ratio",
    "seconds",
    "return_last_frame",
    "generate_audio",
    "draft",
    "output_format",
    FROM_FORM,
)
_SECRET = b"a simulated signature protects nothing"


class PendingSubmission(Struct):
    """
    A job that is not accepted yet.

    Attributes:
        rule: The number of the scenario's rule for it, or None.
        requests: How many POSTs it has sent.
    """

    job: JobInfo
    rule: int | None = None
    requests: int = 0


class SimulatorState:
    """
    The simulator's state.

    Args:
        clock: Seconds that never decrease.
        pricer: Says what it charges.
    """

    def __init__(
        self, scenario: Scenario, ledger: SubmissionLedger, clock: Callable[[], float], pricer: Pricer
    ) -> None:
        self.scenario = scenario
        self.ledger = ledger
        self.tasks: dict[str, Task] = {}
        self._clock = clock
        self._pricer = pricer
        self._started = clock()
        # Tasks have times since 1970, which advance with `clock`.
        self._epoch = time.time() - self._started
        self._pending: dict[str, PendingSubmission] = {}
        self._jobs = 0
        self._requests = 0
        limit = scenario.rate_limit
        self._submit_limiter = _RateLimiter(limit.submit_per_s, limit.burst)
        self._poll_limiter = _RateLimiter(limit.poll_per_s, limit.burst)
        for entry in ledger.accepted:
            self._add_task(entry)

    @property
    def now(self) -> float:
        """The time in seconds since 1970."""
        return self._epoch + self._clock()

    def new_request_id(self) -> str:
        """Return an id for a request, like those in the gateway's errors."""
        self._requests += 1
        stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(self.now))
        return f"{stamp}{self._requests:09d}sim"

    def outage(self) -> Fault | None:
        """Return the answer of the whole API in the current outage, or None if there is none."""
        return self.scenario.outage_at(self._clock() - self._started)

    def accepts_key(self, key: str) -> bool:
        """Return whether a key is accepted."""
        return bool(key) and (not self.scenario.keys or key in self.scenario.keys)

    def allow_submit(self) -> bool:
        """Return whether the rate limit allows one more submission, and count it if so."""
        return self._submit_limiter.allow(self._clock())

    def allow_poll(self) -> bool:
        """Return whether the rate limit allows one more poll, and count it if so."""
        return self._poll_limiter.allow(self._clock())

    def receive(self, request: Mapping[str, Json], key: str) -> tuple[PendingSubmission, Fault | None]:
        """Return the job of a valid POST, and the fault that applies to this POST."""
        digest = request_digest(request)
        pending = self._pending.get(digest)
        if pending is None:
            self._jobs += 1
            pending = PendingSubmission(_job_info(self._jobs, digest, request, key))
            self._pending[digest] = pending
        # The key may differ from that of the previous POST.
        pending.job = _job_info(pending.job.number, digest, request, key)
        pending.rule = self.scenario.rule_number(pending.job)
        faults = self.scenario.rule(pending.rule).faults
        fault = fault_at(faults.get(RequestKind.SUBMIT, ()), pending.requests)
        pending.requests += 1
        return pending, fault

    async def accept(self, pending: PendingSubmission, request: Mapping[str, Json]) -> Task:
        """Create a task and record it in the ledger: when this returns, it is paid for."""
        job = pending.job
        # The next POST of the same request is another job.
        del self._pending[job.digest]
        durations = self.scenario.rule(pending.rule).task.generate_s or self.scenario.generate_s
        entry = AcceptedSubmission(
            digest=job.digest,
            model=job.model,
            prompt=job.prompt,
            label=self.scenario.label(job.prompt),
            key=_key_fingerprint(job.key),
            task_id=_task_id(job.digest, len(self.ledger.accepted), self._epoch),
            at=self.now,
            video_options={name: request[name] for name in _VIDEO_OPTIONS if name in request},
            number=job.number,
            rule=pending.rule,
            generate_s=durations.at(seeded_draw(self.scenario.seed, job.digest, "generate_s")),
            **self._charge(request, job.digest),
        )
        task = self._add_task(entry)
        await self.ledger.record(entry)
        return task

    def _charge(self, request: Mapping[str, Json], digest: str) -> dict[str, str]:
        """Return what a task is charged, whatever becomes of it: by the real length of its video, or its tokens."""
        price = self._pricer.quote(request, utc_day(self.now))
        if isinstance(price, Unpriced):
            return {}
        video = video_spec(request, digest)
        usage: dict[str, Json] = {"seconds": video.seconds, **tokens_used(video)}
        if str(request["model"]).startswith("wan3"):
            # As its answers say.
            usage["input_seconds"] = 0
        amount, _ = charged(reserve(price, number=1, at=self.now), usage, None)
        return {"charged": nanos_text(amount), "currency": price.currency}

    def signed_path(self, task: Task, name: str) -> str:
        """Return a new signed URL of a task's asset, without its origin."""
        task.issued += 1
        path = f"/{task.task_id}/{name}"
        expires = int(self.now + self.scenario.url_valid_s)
        signature = _signature(path, expires, task.issued)
        return f"{path}?Expires={expires}&Version={task.issued}&Signature={signature}"

    def refusal(self, task: Task, path: str, query: Mapping[str, str]) -> str | None:
        """Return why a signed URL is refused, or None if it is valid."""
        expires, version = _parse_number(query.get("Expires")), _parse_number(query.get("Version"))
        if not hmac.compare_digest(_signature(path, expires, version), query.get("Signature", "")):
            return "SignatureDoesNotMatch"
        if expires < self.now or version <= task.revoked:
            return "AccessDenied: Request has expired"
        return None

    def _add_task(self, entry: AcceptedSubmission) -> Task:
        """Create the task of an entry, which is new or from the ledger's file."""
        task = Task(
            task_id=entry.task_id,
            model=entry.model,
            video=video_spec({"model": entry.model, **entry.video_options}, entry.digest),
            video_options=entry.video_options,
            rule=self.scenario.rule(entry.rule),
            created_at=entry.at,
            generate_s=entry.generate_s,
        )
        self._jobs = max(self._jobs, entry.number)
        self.tasks[task.task_id] = task
        return task


class _RateLimiter:
    """Allows requests at an even rate, with a burst; any number if the rate is None."""

    def __init__(self, per_s: float | None, burst: int) -> None:
        self._interval = 1 / per_s if per_s else 0.0
        self._tolerance = self._interval * (burst - 1)
        self._due = 0.0

    def allow(self, now: float) -> bool:
        """Return whether a request at this time is allowed, and count it if so."""
        if now < self._due - self._tolerance:
            return False
        self._due = max(self._due, now) + self._interval
        return True


def validation_error(request: Any) -> str | None:
    """
    Validate a body with the schema of its model, and return what is wrong, or None.

    Keys that the schema does not list are ignored, as the gateway ignores them: the vendor often adds fields.
    """
    if not isinstance(request, dict):
        return "the body is not a JSON object"
    schemas = catalog.load_catalog()
    schema = schemas.select(request)
    if isinstance(schema, Finding):
        # A model without a schema here may be a new one, or of a schema of the user's own.
        return None if isinstance(request.get("model"), str) else schema.message
    known = schema.document["properties"]
    listed = request if request.keys() <= known.keys() else {k: v for k, v in request.items() if k in known}
    if schema.is_clean(listed):
        return None
    errors = [finding for finding in schema.findings(listed) if finding.severity is Severity.ERROR]
    return "; ".join(finding.message for finding in errors) or None


def _job_info(number: int, digest: str, request: Mapping[str, Json], key: str) -> JobInfo:
    seed = request.get("seed")
    return JobInfo(
        number, digest, request["model"], _prompt(request), key, seed if type(seed) is int else None
    )


def _prompt(request: Mapping[str, Json]) -> str:
    """Return the text of a request, which Seedance 2 has in an item of media."""
    media = request.get("media")
    items = media if isinstance(media, list) else []
    texts = [request.get("prompt"), *(item.get("text") for item in items if isinstance(item, dict))]
    return next((text for text in texts if isinstance(text, str) and text), "")


def request_digest(request: Mapping[str, Json]) -> str:
    """Return the digest of a request as it is in the ledger."""
    text = json.dumps(request, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _key_fingerprint(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:12]


def _task_id(digest: str, number: int, epoch: float) -> str:
    """Return a unique task id like the gateway's: ``task_`` and 32 characters."""
    return f"task_{hashlib.sha256(f'{digest}/{number}/{epoch}'.encode()).hexdigest()[:32]}"


def _signature(path: str, expires: int, version: int) -> str:
    return hmac.new(_SECRET, f"{path}/{expires}/{version}".encode(), "sha256").hexdigest()[:40]


def _parse_number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 16 else 0

"""Jobs of a plan in groups: what a run does with each of them, and why; and the local files that it uploads."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from enum import StrEnum

from msgspec import Struct, field

from runner.api.options import RunOptions
from runner.core.estimate import CostEstimateBuilder, Estimate, estimate_duration
from runner.core.lifecycle import Event, State, Step, next_step, sources
from runner.core.model import JobSpec, Json, OnChanged
from runner.core.prices import Billable, Quote, Unpriced
from runner.core.settings import Settings
from runner.manifest.file_references import uploads_in
from runner.results.inline_media import replace_inline_media
from runner.schema.catalog import catalog_with
from runner.store.files import is_ready, read_uploads


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
_AGAIN = "failed, a new attempt"
_OLD_REQUEST = ", with its old request"
_FAILED_FOR_GOOD = "failed; only `runner rerun` with its --class submits it again"
_INVALID = "invalid, recorded as failed"
_CHANGED = "its request has changed since it was submitted"
_CHANGED_AND_KEPT = f"{_CHANGED}; the old result is kept"
_NOT_REPLACEABLE = f"{_CHANGED}, and a task for the old one may exist"
_REPLACED = "not submitted yet, and its request has changed"
_GONE = "no longer in the manifest"


class JobGroups(Struct):
    """
    Counts jobs by action, reason and model, and keeps the first few.

    Args:
        options: What a run is asked to do with failed and changed jobs.
        retried: Ids of the failed jobs that a rerun submits again.
        show: How many jobs to keep.
    """

    options: RunOptions
    retried: Set[str]
    show: int
    price: Callable[[Mapping[str, Json]], tuple[Billable, Quote | Unpriced]]
    count_uploads: Callable[[Mapping[str, Json]], None]
    cost: CostEstimateBuilder = field(default_factory=CostEstimateBuilder)
    first: list[PlannedJob] = []
    states: Counter[State] = field(default_factory=Counter)
    _groups: Counter[tuple[Action, str, str]] = field(default_factory=Counter)

    def add(self, spec: JobSpec, word: str, state: State | None) -> None:
        """Count a job of the manifest, by how it compares with the store's and the state of that."""
        match word:
            case "changed" if state is not None:
                self.states[state] += state is not State.SUCCEEDED
                action, why = self._changed(spec, state)
            case "invalid":
                action, why = Action.LEAVE, _INVALID
            case "replaced":
                action, why = Action.SUBMIT, _REPLACED
            case _:
                if state is not None:
                    self.states[state] += 1
                action, why = self._unchanged(spec, state)
        self._groups[action, why, spec.model] += 1
        if action is Action.SUBMIT:
            self.cost.add(spec.model, *self.price(spec.request))
            self.count_uploads(spec.request)
        # The manifest does not have the old request.
        if len(self.first) < self.show and action in _ACTIONS.values() and not why.endswith(_OLD_REQUEST):
            self.first.append(
                PlannedJob(spec.job_id, action, why, replace_inline_media(spec.request), str(spec.source))
            )

    def _unchanged(self, spec: JobSpec, state: State | None) -> tuple[Action, str]:
        action, why = choose_action(state, task_id=spec.task_id)
        if state is State.FAILED and action is Action.LEAVE:
            if spec.job_id not in self.retried:
                return action, _FAILED_FOR_GOOD
            if self.options.retry_failed:
                return Action.SUBMIT, _AGAIN
        return action, why

    def _changed(self, spec: JobSpec, state: State) -> tuple[Action, str]:
        if self.options.on_changed is OnChanged.KEEP:
            action, why = self._unchanged(spec, state)
            is_left = action in (Action.DONE, Action.LEAVE)
            return (Action.LEAVE, _CHANGED_AND_KEPT) if is_left else (action, why + _OLD_REQUEST)
        if self.options.on_changed is OnChanged.ERROR:
            return Action.LEAVE, _CHANGED
        if state not in sources(Event.RERUN):
            return Action.LEAVE, _NOT_REPLACEABLE
        return Action.SUBMIT, _CHANGED

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


class PlannedUploads(Struct, frozen=True):
    """Files that would be uploaded, each content once, and their size together."""

    files: int
    bytes: int


class UploadCounter:
    """Counts the files of jobs to submit that were not uploaded yet."""

    def __init__(self, connection: sqlite3.Connection, settings: Settings) -> None:
        self._inputs = settings.inputs
        self._sizes: dict[str, int] = {}
        if self._inputs is not None:
            self._catalog = catalog_with(settings.schemas)
            self._known = read_uploads(connection, self._inputs.upload)

    def add(self, request: Mapping[str, Json]) -> None:
        """Count the files of a request."""
        if self._inputs is None:
            return
        for _, reference in uploads_in(request, self._inputs, self._catalog):
            if not is_ready(self._known.get(reference["sha256"]), time.time()):
                self._sizes[reference["sha256"]] = reference["bytes"]

    def counted(self) -> PlannedUploads | None:
        """Return what was counted; None if the manifest has no `inputs`."""
        return None if self._inputs is None else PlannedUploads(len(self._sizes), sum(self._sizes.values()))

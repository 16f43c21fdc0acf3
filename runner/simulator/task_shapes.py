"""A task, its state at a given time, and the bodies in which the API shows it, as documented (facts F69, F72)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType

from msgspec import Struct, field

from runner.core.model import Json
from runner.simulator.faults import Fault, RequestKind, fault_at
from runner.simulator.scenario import ErrorLocation, IdStyle, Rule, Shape, TaskBehavior, TaskEnd
from runner.simulator.video import VideoSpec

_QUEUED_SHARE = 0.2
"""The share of the time for a video that its task is queued."""


class Phase(StrEnum):
    """The state of a task; each shape has its own words for it."""

    UNKNOWN = "unknown"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Task(Struct):
    """
    A task, which was paid for.

    Attributes:
        video_options: The fields of the request that describe the video.
        created_at: In seconds since 1970.
        generate_s: How long the video takes.
        request_counts: How many requests of each kind the task has received.
        issued: How many signed URLs were issued; each contains its number.
        revoked: URLs up to this number are refused.
    """

    task_id: str
    model: str
    video: VideoSpec
    video_options: Mapping[str, Json]
    rule: Rule
    created_at: float
    generate_s: float
    request_counts: Counter[RequestKind] = field(default_factory=Counter)
    issued: int = 0
    revoked: int = 0

    def phase_at(self, time: float) -> Phase | None:
        """Return the phase at a time, or None if the API does not know the task."""
        return phase(self.rule.task, self.generate_s, time - self.created_at)

    def progress_at(self, time: float) -> int:
        """Return how much of the video is done, from 0 to 100."""
        return min(100, max(0, int(100 * (time - self.created_at) / max(self.generate_s, 0.001))))

    def next_fault(self, kind: RequestKind) -> Fault | None:
        """Count one more request, and return the fault that applies to it."""
        count = self.request_counts[kind]
        self.request_counts[kind] += 1
        return fault_at(self.rule.faults.get(kind, ()), count)


def phase(behavior: TaskBehavior, generate_s: float, age_s: float) -> Phase | None:
    """
    Return the phase of a task of a given age, or None if the API does not know the task.

    >>> phase(TaskBehavior(unknown_s=1), 10, 0.5), phase(TaskBehavior(), 10, 5), phase(TaskBehavior(missing_s=1), 10, 0.5)
    (<Phase.UNKNOWN: 'unknown'>, <Phase.RUNNING: 'running'>, None)
    """
    if behavior.end is TaskEnd.LOST or age_s < behavior.missing_s:
        return None
    if age_s < behavior.unknown_s:
        return Phase.UNKNOWN
    if age_s < generate_s * _QUEUED_SHARE:
        return Phase.QUEUED
    if age_s < generate_s or behavior.end is TaskEnd.NEVER:
        return Phase.RUNNING
    return Phase.FAILED if behavior.end is TaskEnd.MODERATION else Phase(behavior.end)


_STATUS_WORDS: Mapping[Shape, Mapping[Phase, str]] = MappingProxyType(
    {
        Shape.UNIFIED: {Phase.RUNNING: "in_progress", Phase.SUCCEEDED: "completed"},
        Shape.WAN3: {Phase.RUNNING: "in_progress", Phase.SUCCEEDED: "completed"},
        Shape.ALI: {Phase.QUEUED: "pending"},
        Shape.BYTEPLUS: {},
        Shape.ARK: {},
        Shape.WRAPPED: {
            Phase.UNKNOWN: "NOT_START",
            Phase.QUEUED: "QUEUED",
            Phase.RUNNING: "IN_PROGRESS",
            Phase.SUCCEEDED: "SUCCESS",
            Phase.FAILED: "FAILURE",
        },
    }
)

_ERROR_LOCATIONS = {
    Shape.UNIFIED: ErrorLocation.ERROR,
    # The Ali pages document no field for an error.
    Shape.ALI: ErrorLocation.NOWHERE,
    Shape.WAN3: ErrorLocation.ERROR,
    Shape.BYTEPLUS: ErrorLocation.METADATA_ERROR,
    Shape.ARK: ErrorLocation.ERROR,
    Shape.WRAPPED: ErrorLocation.FAIL_REASON,
}

_DEFAULT_ERRORS = {
    TaskEnd.FAILED: ("InternalError", "The video could not be generated, please try again."),
    TaskEnd.MODERATION: ("DataInspectionFailed", "Output data may contain inappropriate content."),
    TaskEnd.CANCELLED: ("TaskCancelled", "The task was cancelled."),
    TaskEnd.EXPIRED: ("TaskExpired", "The task expired before it was finished."),
}


class TaskView(Struct, frozen=True):
    """
    What an answer shows of a task at a given time.

    Attributes:
        time: In seconds since 1970.
        video_url, last_frame_url: None if the answer has none.
    """

    task: Task
    phase: Phase
    time: float
    video_url: str | None = None
    last_frame_url: str | None = None

    @property
    def is_final(self) -> bool:
        """Whether the phase can no longer change."""
        return self.phase not in (Phase.UNKNOWN, Phase.QUEUED, Phase.RUNNING)

    @property
    def progress(self) -> int:
        """From 0 to 100; only a finished video has 100."""
        return 100 if self.phase is Phase.SUCCEEDED else min(99, self.task.progress_at(self.time))


FROM_FORM = "from_form"
"""The option of a task that was submitted as a form, as SDKs do."""

_SHAPES_BY_MODEL = (
    ("wan2.7-t2v", Shape.ALI),
    ("wan2.7", Shape.UNIFIED),
    ("wan3.0", Shape.WAN3),
    ("wan2.2-kf2v", Shape.ALI),
    ("wan2.1-kf2v", Shape.ALI),
    ("first-frame-video-model", Shape.ALI),
    # The pages of Seedance do not say which of these two it is (fact F70); the simulator uses both.
    ("seedance-1-5", Shape.BYTEPLUS),
    ("seedance", Shape.ARK),
    ("dreamina-seedance", Shape.ARK),
)


def shape_of(task: Task) -> Shape:
    """Return the shape of a task's answers: that of its rule, or the one that the model's page documents."""
    if task.rule.task.shape:
        return task.rule.task.shape
    if task.video_options.get(FROM_FORM):
        # The SDKs that send forms know only these words.
        return Shape.UNIFIED
    return next((shape for prefix, shape in _SHAPES_BY_MODEL if task.model.startswith(prefix)), Shape.UNIFIED)


def submitted(task: Task) -> dict[str, Json]:
    """Return the answer to the POST that created a task; the pages of Seedance document only an id."""
    if task.model.startswith(("seedance", "dreamina-seedance")) and not task.video_options.get(FROM_FORM):
        return {"id": task.task_id} if task.rule.task.ids is IdStyle.DOCUMENTED else {**_ids(task)}
    return {
        **_ids(task),
        "object": "video",
        "model": task.model,
        "status": _status(task, Phase.QUEUED),
        "progress": 0,
        "created_at": int(task.created_at),
    }


def polled(view: TaskView) -> dict[str, Json]:
    """Return the answer to a poll."""
    body = _SHAPES[shape_of(view.task)](view)
    if view.is_final and view.phase is not Phase.SUCCEEDED:
        _add_failure(view.task, body.get("data", body))
    return body


def _unified(view: TaskView) -> dict[str, Json]:
    task = view.task
    return {
        **_ids(task),
        "object": "video",
        "model": task.model,
        "status": _status(task, view.phase),
        "progress": view.progress,
        "created_at": int(task.created_at),
        # Also present while the task is running: it is the time of its last change (fact F68).
        "completed_at": int(view.time),
        "metadata": {"url": view.video_url} if view.video_url else {},
    }


def _ali(view: TaskView) -> dict[str, Json]:
    task = view.task
    body: dict[str, Json] = {
        **_ids(task),
        "object": "video",
        "model": task.model,
        "status": _status(task, view.phase),
        "progress": view.progress,
        "created_at": int(task.created_at),
    }
    if view.phase is Phase.SUCCEEDED:
        body["completed_at"] = _ended_at(task)
        is_wan3 = shape_of(task) is Shape.WAN3
        body["metadata"] = {
            "video_duration": task.video.seconds,
            "SR": min(task.video.width, task.video.height),
            "ratio" if is_wan3 else "video_ratio": _ratio(task),
            **({"input_video_duration": 0.0, "fps": 24} if is_wan3 else {}),
        }
        if view.video_url:
            body["video_url"] = view.video_url
    return body


def _byteplus(view: TaskView) -> dict[str, Json]:
    task = view.task
    body: dict[str, Json] = {
        **_ids(task),
        "object": "video",
        "model": task.model,
        "status": _status(task, view.phase),
        "progress": view.progress,
        "created_at": int(task.created_at),
        "updated_at": int(view.time),
        "metadata": _video_fields(task),
    }
    if view.phase is Phase.SUCCEEDED:
        body["metadata"]["usage"] = _usage(task)
    if view.is_final:
        body["completed_at"] = _ended_at(task)
    if view.video_url:
        body["video_url"] = view.video_url
    if view.last_frame_url:
        body["last_frame_url"] = view.last_frame_url
    return body


def _ark(view: TaskView) -> dict[str, Json]:
    task = view.task
    ids = {"id": task.task_id} if task.rule.task.ids is IdStyle.DOCUMENTED else _ids(task)
    body: dict[str, Json] = {
        **ids,
        "model": task.model,
        "status": _status(task, view.phase),
        "error": None,
        "created_at": int(task.created_at),
        "updated_at": int(view.time),
    }
    if view.phase is Phase.SUCCEEDED:
        urls = {"video_url": view.video_url, "last_frame_url": view.last_frame_url}
        body["content"] = {name: url for name, url in urls.items() if url}
        body |= {**_video_fields(task), "usage": _usage(task)}
    return body


def _wrapped(view: TaskView) -> dict[str, Json]:
    data: dict[str, Json] = {
        "task_id": view.task.task_id,
        "status": _status(view.task, view.phase),
        "progress": f"{view.progress}%",
        "fail_reason": "",
    }
    if view.video_url:
        content = {"video_url": view.video_url, "last_frame_url": view.last_frame_url}
        data["result_url"] = view.video_url
        data["data"] = {"content": {name: url for name, url in content.items() if url}}
    return {"code": "success", "message": "", "data": data}


_SHAPES: Mapping[Shape, Callable[[TaskView], dict[str, Json]]] = MappingProxyType(
    {
        Shape.UNIFIED: _unified,
        Shape.ALI: _ali,
        Shape.WAN3: _ali,
        Shape.BYTEPLUS: _byteplus,
        Shape.ARK: _ark,
        Shape.WRAPPED: _wrapped,
    }
)


def _add_failure(task: Task, body: dict[str, Json]) -> None:
    """Add the reason of a failure where the task's shape or its rule has it."""
    behavior = task.rule.task
    location = behavior.error_in or _ERROR_LOCATIONS[shape_of(task)]
    if location is ErrorLocation.NOWHERE and behavior.error_in is None and behavior.end is TaskEnd.MODERATION:
        # Without a reason, nobody could tell a moderation from another failure.
        location = ErrorLocation.METADATA_ERROR
    code, message = _DEFAULT_ERRORS[behavior.end]
    error = {"code": behavior.code or code, "message": behavior.message or message}
    match location:
        case ErrorLocation.ERROR:
            body["error"] = error
        case ErrorLocation.ERROR_TEXT:
            body["error"] = error["message"]
        case ErrorLocation.METADATA_ERROR:
            body["metadata"] = {**body.get("metadata", {}), "error": error}
        case ErrorLocation.METADATA_URL:
            body["metadata"] = {**body.get("metadata", {}), "url": error["message"]}
        case ErrorLocation.FAIL_REASON:
            body["fail_reason"] = error["message"]
        case ErrorLocation.OUTPUT:
            body["output"] = error
        case ErrorLocation.NOWHERE:
            pass


def _ids(task: Task) -> dict[str, str]:
    match task.rule.task.ids:
        case IdStyle.TASK_ID:
            return {"task_id": task.task_id}
        case IdStyle.DIFFERENT:
            return {"id": f"video_{task.task_id.removeprefix('task_')}", "task_id": task.task_id}
        case IdStyle.DOCUMENTED:
            return {"id": task.task_id, "task_id": task.task_id}


def _status(task: Task, phase: Phase) -> str:
    word = task.rule.task.words.get(phase)
    return word if word is not None else _STATUS_WORDS[shape_of(task)].get(phase, phase.value)


def _ended_at(task: Task) -> int:
    return int(task.created_at + task.generate_s)


def _video_fields(task: Task) -> dict[str, Json]:
    spec = task.video
    return {
        "generate_audio": spec.has_sound,
        "draft": bool(task.video_options.get("draft", False)),
        "resolution": task.video_options.get("size") or f"{min(spec.width, spec.height)}p",
        "ratio": _ratio(task),
        "duration": spec.seconds,
        "framespersecond": 24,
    }


def _ratio(task: Task) -> str:
    return str(task.video_options.get("ratio") or "16:9")


def _usage(task: Task) -> dict[str, int]:
    return tokens_used(task.video)


def tokens_used(video: VideoSpec) -> dict[str, int]:
    """Return the tokens that a video takes, as answers name them."""
    tokens = video.width * video.height * 24 * video.seconds // 1024
    return {"completion_tokens": tokens, "total_tokens": tokens}

"""The bodies in which the API shows a task, as its pages document them (facts F69, F72)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from msgspec import Struct

from runner.core.model import Json
from runner.simulator.scenario import ErrorPlace, IdStyle, Shape, TaskEnd
from runner.simulator.task import Phase, Task

_WORDS: Mapping[Shape, Mapping[Phase, str]] = MappingProxyType(
    {
        Shape.UNIFIED: {Phase.RUNNING: "in_progress", Phase.SUCCEEDED: "completed"},
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

_ERROR_PLACES = {
    Shape.UNIFIED: ErrorPlace.ERROR,
    # The Ali pages document no place for an error at all.
    Shape.ALI: ErrorPlace.NOWHERE,
    Shape.BYTEPLUS: ErrorPlace.METADATA_ERROR,
    Shape.ARK: ErrorPlace.ERROR,
    Shape.WRAPPED: ErrorPlace.FAIL_REASON,
}

_REASONS = {
    TaskEnd.FAILED: ("InternalError", "The video could not be generated, please try again."),
    TaskEnd.MODERATION: ("DataInspectionFailed", "Output data may contain inappropriate content."),
    TaskEnd.CANCELLED: ("TaskCancelled", "The task was cancelled."),
    TaskEnd.EXPIRED: ("TaskExpired", "The task expired before it was finished."),
}


class TaskView(Struct, frozen=True):
    """
    What there is to tell of a task at one moment.

    Attributes:
        at: Seconds since 1970.
        video_url, last_frame_url: Addresses, or None where there are none to give.
    """

    task: Task
    phase: Phase
    at: float
    video_url: str | None = None
    last_frame_url: str | None = None

    @property
    def is_over(self) -> bool:
        """Nothing more happens to the task."""
        return self.phase not in (Phase.UNKNOWN, Phase.QUEUED, Phase.RUNNING)

    @property
    def progress(self) -> int:
        """From 0 to 100, which only a finished video has."""
        return 100 if self.phase is Phase.SUCCEEDED else min(99, self.task.progress_at(self.at))


def shape_of(task: Task) -> Shape:
    """Return the shape that a task's answers have: its rule's, or that of the model's page."""
    if task.rule.task.shape:
        return task.rule.task.shape
    if task.model.startswith("wan2.7"):
        return Shape.UNIFIED
    # The pages of Seedance leave open which of these two it is (fact F70): the simulator shows both.
    if task.model.startswith("seedance-1-5"):
        return Shape.BYTEPLUS
    return Shape.ARK if task.model.startswith("seedance") else Shape.ALI


def submitted(task: Task) -> dict[str, Json]:
    """Return the answer to the POST that made a task; the pages of Seedance document an id and nothing else."""
    if task.model.startswith("seedance"):
        return {"id": task.task_id} if task.rule.task.ids is IdStyle.DOCUMENTED else {**_ids(task)}
    return {
        **_ids(task),
        "object": "video",
        "model": task.model,
        "status": _word(task, Phase.QUEUED),
        "progress": 0,
        "created_at": int(task.created_at),
    }


def queried(sight: TaskView) -> dict[str, Json]:
    """Return the answer to a query for a task."""
    body = _SHAPES[shape_of(sight.task)](sight)
    if sight.is_over and sight.phase is not Phase.SUCCEEDED:
        _add_failure(sight.task, body.get("data", body))
    return body


def _unified(sight: TaskView) -> dict[str, Json]:
    task = sight.task
    return {
        **_ids(task),
        "object": "video",
        "model": task.model,
        "status": _word(task, sight.phase),
        "progress": sight.progress,
        "created_at": int(task.created_at),
        # Filled while it is still running: it is the row's last change, and proves nothing (fact F68).
        "completed_at": int(sight.at),
        "metadata": {"url": sight.video_url} if sight.video_url else {},
    }


def _ali(sight: TaskView) -> dict[str, Json]:
    task = sight.task
    body: dict[str, Json] = {
        **_ids(task),
        "object": "video",
        "model": task.model,
        "status": _word(task, sight.phase),
        "progress": sight.progress,
        "created_at": int(task.created_at),
    }
    if sight.phase is Phase.SUCCEEDED:
        body["completed_at"] = _ended_at(task)
        body["metadata"] = {
            "video_duration": task.video.seconds,
            "SR": task.video.height,
            "video_ratio": _ratio(task),
        }
        if sight.video_url:
            body["video_url"] = sight.video_url
    return body


def _byteplus(sight: TaskView) -> dict[str, Json]:
    task = sight.task
    body: dict[str, Json] = {
        **_ids(task),
        "object": "video",
        "model": task.model,
        "status": _word(task, sight.phase),
        "progress": sight.progress,
        "created_at": int(task.created_at),
        "updated_at": int(sight.at),
        "metadata": _picture(task),
    }
    if sight.phase is Phase.SUCCEEDED:
        body["metadata"]["usage"] = _usage(task)
    if sight.is_over:
        body["completed_at"] = _ended_at(task)
    if sight.video_url:
        body["video_url"] = sight.video_url
    if sight.last_frame_url:
        body["last_frame_url"] = sight.last_frame_url
    return body


def _ark(sight: TaskView) -> dict[str, Json]:
    task = sight.task
    ids = {"id": task.task_id} if task.rule.task.ids is IdStyle.DOCUMENTED else _ids(task)
    body: dict[str, Json] = {
        **ids,
        "model": task.model,
        "status": _word(task, sight.phase),
        "error": None,
        "created_at": int(task.created_at),
        "updated_at": int(sight.at),
    }
    if sight.phase is Phase.SUCCEEDED:
        urls = {"video_url": sight.video_url, "last_frame_url": sight.last_frame_url}
        body["content"] = {name: url for name, url in urls.items() if url}
        body |= {**_picture(task), "usage": _usage(task)}
    return body


def _wrapped(sight: TaskView) -> dict[str, Json]:
    data: dict[str, Json] = {
        "task_id": sight.task.task_id,
        "status": _word(sight.task, sight.phase),
        "progress": f"{sight.progress}%",
        "fail_reason": "",
    }
    if sight.video_url:
        content = {"video_url": sight.video_url, "last_frame_url": sight.last_frame_url}
        data["result_url"] = sight.video_url
        data["data"] = {"content": {name: url for name, url in content.items() if url}}
    return {"code": "success", "message": "", "data": data}


_SHAPES: Mapping[Shape, Callable[[TaskView], dict[str, Json]]] = MappingProxyType(
    {
        Shape.UNIFIED: _unified,
        Shape.ALI: _ali,
        Shape.BYTEPLUS: _byteplus,
        Shape.ARK: _ark,
        Shape.WRAPPED: _wrapped,
    }
)


def _add_failure(task: Task, body: dict[str, Json]) -> None:
    """Put the reason of a failure where the task's shape, or its rule, has it."""
    plot = task.rule.task
    place = plot.error_in or _ERROR_PLACES[shape_of(task)]
    if place is ErrorPlace.NOWHERE and plot.error_in is None and plot.end is TaskEnd.MODERATION:
        # A refusal that nobody could read as one would be no moderation.
        place = ErrorPlace.METADATA_ERROR
    usual_code, usual_message = _REASONS[plot.end]
    error = {"code": plot.code or usual_code, "message": plot.message or usual_message}
    match place:
        case ErrorPlace.ERROR:
            body["error"] = error
        case ErrorPlace.ERROR_TEXT:
            body["error"] = error["message"]
        case ErrorPlace.METADATA_ERROR:
            body["metadata"] = {**body.get("metadata", {}), "error": error}
        case ErrorPlace.METADATA_URL:
            body["metadata"] = {**body.get("metadata", {}), "url": error["message"]}
        case ErrorPlace.FAIL_REASON:
            body["fail_reason"] = error["message"]
        case ErrorPlace.OUTPUT:
            body["output"] = error
        case ErrorPlace.NOWHERE:
            pass


def _ids(task: Task) -> dict[str, str]:
    match task.rule.task.ids:
        case IdStyle.TASK_ID:
            return {"task_id": task.task_id}
        case IdStyle.DIFFERENT:
            return {"id": f"video_{task.task_id.removeprefix('task_')}", "task_id": task.task_id}
        case IdStyle.DOCUMENTED:
            return {"id": task.task_id, "task_id": task.task_id}


def _word(task: Task, phase: Phase) -> str:
    own = task.rule.task.words.get(phase)
    return own if own is not None else _WORDS[shape_of(task)].get(phase, phase.value)


def _ended_at(task: Task) -> int:
    return int(task.created_at + task.generate_s)


def _picture(task: Task) -> dict[str, Json]:
    film = task.video
    return {
        "generate_audio": film.has_sound,
        "draft": bool(task.asked.get("draft", False)),
        "resolution": task.asked.get("size") or f"{min(film.width, film.height)}p",
        "ratio": _ratio(task),
        "duration": film.seconds,
        "framespersecond": 24,
    }


def _ratio(task: Task) -> str:
    return str(task.asked.get("ratio") or "16:9")


def _usage(task: Task) -> dict[str, int]:
    tokens = task.video.width * task.video.height * 24 * task.video.seconds // 1024
    return {"completion_tokens": tokens, "total_tokens": tokens}

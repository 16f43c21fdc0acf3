"""
The simulated API's own origin: submit, poll, content, models, and the ledger for tests.

The order of checks is that of a real gateway: an outage answers before anything
is read, then the key, the rate, the body's form, and only then what a scenario has
in store for the job.
"""

from __future__ import annotations

import re

from aiohttp import web

from runner import jsontext
from runner.core.model import Json
from runner.schema import catalog
from runner.simulator import answers, task_shapes
from runner.simulator.answers import SimulatedAnswer
from runner.simulator.assets import asset_file, deliver
from runner.simulator.faults import Fault, Place
from runner.simulator.scenario import UrlPlace
from runner.simulator.state import PendingSubmission, SimulatorState, why_invalid
from runner.simulator.task import Phase, Task

_TASK_PATH = re.compile(r"/v1/videos/([\w.~-]{1,200})(/content)?")
_ROUTES = frozenset({"/v1/videos", "/v1/models", "/simulator/ledger"})


class SimulatedGateway:
    """
    Answers the API's requests.

    Attributes:
        origin: Its own, such as ``http://127.0.0.1:8000``; like the others, known once the ports are.
        asset_origin: Where signed addresses lead.
        other_origin: Where redirects lead.
    """

    def __init__(self, world: SimulatorState) -> None:
        self._state = world
        self.origin = ""
        self.asset_origin = ""
        self.other_origin = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer any request."""
        path = request.path
        found = _TASK_PATH.fullmatch(path)
        if found:
            route = "/v1/videos/{id}/content" if found[2] else "/v1/videos/{id}"
        else:
            route = path if path in _ROUTES else "other"
        method = "GET" if request.method == "HEAD" else request.method
        self._state.ledger.requests[f"{method} {route}"] += 1
        if route == "/simulator/ledger":
            return answers.whole(answers.json_answer(self._state.ledger.as_json()))
        request_id = self._state.new_request_id()
        if outage := self._state.outage():
            return await self._play(request, "outage", outage, request_id)
        if not self._state.accepts_key(_key(request)):
            return answers.whole(answers.not_authorised(request_id))
        match method, route:
            case "POST", "/v1/videos":
                return await self._submit(request, request_id)
            case "GET", "/v1/videos/{id}" if found:
                return await self._poll(request, found[1], request_id)
            case "GET", "/v1/videos/{id}/content" if found:
                return await self._content(request, found[1], request_id)
            case "GET", "/v1/models":
                return answers.whole(answers.json_answer(_models()))
        message = f"Invalid URL ({method} {path})"
        return answers.whole(answers.error_object(404, message, "", "invalid_request_error", request_id))

    async def _submit(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        world = self._state
        if not world.lets_submit():
            return await self._play(request, Place.SUBMIT, Fault("throttled"), request_id)
        try:
            body = jsontext.loads(await request.read())
        except web.HTTPRequestEntityTooLarge:
            return await self._play(request, Place.SUBMIT, Fault("too_large"), request_id)
        except ValueError:
            return await self._play(request, Place.SUBMIT, Fault("bad_request"), request_id)
        if wrong := why_invalid(body):
            model = str(body.get("model")) if isinstance(body, dict) else ""
            return answers.whole(answers.invalid(model, wrong, request_id))
        application, fault = world.application(body, _key(request))
        if fault is None:
            return answers.whole(self._accept(application, body))
        good = self._accept(application, body) if fault.option("created") else None
        return await self._play(request, Place.SUBMIT, fault, request_id, good)

    def _accept(self, application: PendingSubmission, body: dict[str, Json]) -> SimulatedAnswer:
        return answers.json_answer(task_shapes.submitted(self._state.accept(application, body)))

    async def _poll(self, request: web.BaseRequest, task_id: str, request_id: str) -> web.StreamResponse:
        world = self._state
        world.ledger.polls[task_id] += 1
        if not world.lets_poll():
            return await self._play(request, Place.POLL, Fault("throttled"), request_id)
        task = world.find(task_id)
        phase = task.phase_at(world.now) if task else None
        if task is None or phase is None:
            return answers.whole(answers.task_not_exist())
        fault = task.next_fault(Place.POLL)
        if fault is None:
            return answers.whole(self._view(task, phase))
        if fault.name == "unknown":
            world.ledger.faults["poll unknown"] += 1
            return answers.whole(self._view(task, Phase.UNKNOWN))
        return await self._play(request, Place.POLL, fault, request_id, self._view(task, phase))

    def _view(self, task: Task, phase: Phase) -> SimulatedAnswer:
        """Return what a query shows of a task, with fresh addresses once there is something to fetch."""
        world, plot = self._state, task.rule.task
        video_url = last_frame_url = None
        if phase is Phase.SUCCEEDED:
            if plot.url is UrlPlace.CDN:
                video_url = self.asset_origin + world.signed_path(task, "video.mp4")
            elif plot.url is UrlPlace.GATEWAY:
                video_url = f"{self.origin}/v1/videos/{task.task_id}/content"
            if task.asked.get("return_last_frame") and plot.last_frame:
                last_frame_url = self.asset_origin + world.signed_path(task, "last_frame.png")
        return answers.json_answer(
            task_shapes.queried(task_shapes.TaskView(task, phase, world.now, video_url, last_frame_url))
        )

    async def _content(self, request: web.BaseRequest, task_id: str, request_id: str) -> web.StreamResponse:
        world = self._state
        task = world.find(task_id)
        phase = task.phase_at(world.now) if task else None
        if task is None or phase is None:
            return answers.whole(answers.code_and_message(404, "task_not_found", "task not found"))
        if phase is not Phase.SUCCEEDED:
            return answers.whole(answers.task_not_ready(phase))
        fault = task.next_fault(Place.CONTENT)
        if fault:
            response = await self._response(request, Place.CONTENT, fault, request_id, None)
            if response is not None:
                return response
        file = asset_file(task, "video.mp4", fault, with_ranges=False)
        return await deliver(request, file, fault, world.ledger.counter(f"{task_id}/content"))

    async def _play(
        self,
        request: web.BaseRequest,
        place: str,
        fault: Fault,
        request_id: str,
        good: SimulatedAnswer | None = None,
    ) -> web.StreamResponse:
        """Act out a fault that is an answer or a deed, as all those of submit and poll are."""
        response = await self._response(request, place, fault, request_id, good)
        if response is None:
            raise NotImplementedError(f"nobody plays the fault {fault.name} of {place}")
        return response

    async def _response(
        self,
        request: web.BaseRequest,
        place: str,
        fault: Fault,
        request_id: str,
        good: SimulatedAnswer | None,
    ) -> web.StreamResponse | None:
        self._state.ledger.faults[f"{place} {fault.name}"] += 1
        return await answers.perform(
            request, fault, request_id=request_id, good=good, other_origin=self.other_origin
        )


def _key(request: web.BaseRequest) -> str:
    """Return the key that a request carries; the guides also show it without the word Bearer (fact F2)."""
    words = request.headers.get("Authorization", "").split()
    return words[-1] if words and words != ["Bearer"] else ""


def _models() -> dict[str, Json]:
    models = [
        {
            "id": model,
            "object": "model",
            "owned_by": "byteplus" if model.startswith("seedance") else "ali",
            "supported_endpoint_types": ["openai-video"],
        }
        for model in catalog.load().models
    ]
    return {"object": "list", "data": models, "success": True}

"""
The simulated API (submit, poll, content, models, and the ledger for tests) and its ports: one, and two of asset origins.

Requests are checked in the order of a real gateway: in an outage nothing is read, then the key, the rate and the body
are checked, and only then the faults of the job apply.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from runner.core.model import Json
from runner.schema import catalog
from runner.schema.catalog import load_catalog
from runner.schema.price_tables import Pricer, shipped_prices
from runner.simulator import answers, task_shapes
from runner.simulator.answers import SimulatedAnswer
from runner.simulator.asset_library import AssetLibrary
from runner.simulator.assets import AssetServer, asset_file, send_file
from runner.simulator.faults import Fault, RequestKind
from runner.simulator.scenario import Scenario, UrlLocation
from runner.simulator.scenario_reader import load_scenario
from runner.simulator.state import PendingSubmission, SimulatorState, validation_error
from runner.simulator.submission_ledger import SubmissionLedger
from runner.simulator.task_shapes import Phase, Task

_TASK_PATH = re.compile(r"/v1/videos/([\w.~-]{1,200})(/content)?")
_ROUTES = frozenset({"/v1/videos", "/v1/models", "/simulator/ledger"})


class SimulatedGateway:
    """
    Answers the API's requests.

    Attributes:
        origin: Its own, such as ``http://127.0.0.1:8000``. Like the others, it is set once the ports are known.
        asset_origin: Of signed URLs.
        other_origin: Of redirects.
    """

    def __init__(self, state: SimulatorState) -> None:
        self._state = state
        self.library = AssetLibrary(state.scenario.library, lambda: state.now)
        self.origin = ""
        self.asset_origin = ""
        self.other_origin = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer any request."""
        path = request.path
        found = _TASK_PATH.fullmatch(path)
        library_route = AssetLibrary.route(path)
        if found:
            route = "/v1/videos/{id}/content" if found[2] else "/v1/videos/{id}"
        else:
            route = path if path in _ROUTES or library_route else "other"
        method = "GET" if request.method == "HEAD" else request.method
        self._state.ledger.requests[f"{method} {route}"] += 1
        if route == "/simulator/ledger":
            return answers.json_answer(self._state.ledger.as_json()).to_response()
        request_id = self._state.new_request_id()
        if outage := self._state.outage():
            return await self._fault_response(request, "outage", outage, request_id)
        # The job of an upload may be asked for without a key.
        if library_route != "jobs/get-asset-id" and not self._state.accepts_key(_key(request)):
            return answers.unauthorized(request_id).to_response()
        if library_route is not None:
            return (await self.library.answer(request, library_route)).to_response()
        match method, route:
            case "POST", "/v1/videos":
                return await self._submit(request, request_id)
            case "GET", "/v1/videos/{id}" if found:
                return await self._poll(request, found[1], request_id)
            case "GET", "/v1/videos/{id}/content" if found:
                return await self._content(request, found[1], request_id)
            case "GET", "/v1/models":
                return answers.json_answer(_models()).to_response()
        message = f"Invalid URL ({method} {path})"
        answer = answers.error_object(404, message, "", "invalid_request_error", request_id=request_id)
        return answer.to_response()

    async def _submit(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        state = self._state
        if not state.allow_submit():
            return await self._fault_response(request, RequestKind.SUBMIT, Fault("throttled"), request_id)
        try:
            body = await answers.read_body(request)
        except web.HTTPRequestEntityTooLarge:
            return await self._fault_response(request, RequestKind.SUBMIT, Fault("too_large"), request_id)
        except ValueError:
            return await self._fault_response(request, RequestKind.SUBMIT, Fault("bad_request"), request_id)
        if error := validation_error(body) or self.library.refusal(body):
            model = str(body.get("model")) if isinstance(body, dict) else ""
            return answers.invalid_request(model, error, request_id).to_response()
        pending, fault = state.receive(body, _key(request))
        if fault is None:
            return (await self._accept(pending, body)).to_response()
        right_answer = await self._accept(pending, body) if fault.option("created") else None
        return await self._fault_response(request, RequestKind.SUBMIT, fault, request_id, right_answer)

    async def _accept(self, pending: PendingSubmission, body: dict[str, Json]) -> SimulatedAnswer:
        return answers.json_answer(task_shapes.submitted(await self._state.accept(pending, body)))

    async def _poll(self, request: web.BaseRequest, task_id: str, request_id: str) -> web.StreamResponse:
        state = self._state
        state.ledger.polls[task_id] += 1
        if not state.allow_poll():
            return await self._fault_response(request, RequestKind.POLL, Fault("throttled"), request_id)
        task = state.tasks.get(task_id)
        phase = task.phase_at(state.now) if task else None
        if task is None or phase is None:
            return answers.task_not_exist().to_response()
        fault = task.next_fault(RequestKind.POLL)
        if fault is None:
            return self._poll_answer(task, phase).to_response()
        if fault.name == "unknown_status":
            state.ledger.faults["poll unknown_status"] += 1
            return self._poll_answer(task, Phase.UNKNOWN).to_response()
        right_answer = self._poll_answer(task, phase)
        return await self._fault_response(request, RequestKind.POLL, fault, request_id, right_answer)

    def _poll_answer(self, task: Task, phase: Phase) -> SimulatedAnswer:
        """Return what a poll shows of a task, with new signed URLs once it has succeeded."""
        state, behavior = self._state, task.rule.task
        video_url = last_frame_url = None
        if phase is Phase.SUCCEEDED:
            if behavior.url is UrlLocation.CDN:
                video_url = self.asset_origin + state.signed_path(task, task.video.file_name)
            elif behavior.url is UrlLocation.GATEWAY:
                video_url = f"{self.origin}/v1/videos/{task.task_id}/content"
            if task.video_options.get("return_last_frame") and behavior.last_frame:
                last_frame_url = self.asset_origin + state.signed_path(task, "last_frame.png")
        view = task_shapes.TaskView(task, phase, state.now, video_url, last_frame_url)
        return answers.json_answer(task_shapes.polled(view))

    async def _content(self, request: web.BaseRequest, task_id: str, request_id: str) -> web.StreamResponse:
        state = self._state
        task = state.tasks.get(task_id)
        phase = task.phase_at(state.now) if task else None
        if task is None or phase is None:
            return answers.code_and_message(404, "task_not_found", "task not found").to_response()
        if phase is not Phase.SUCCEEDED:
            return answers.task_not_ready(phase).to_response()
        fault = task.next_fault(RequestKind.CONTENT)
        if fault:
            response = await self._try_fault_response(request, RequestKind.CONTENT, fault, request_id, None)
            if response is not None:
                return response
        file = asset_file(task, task.video.file_name, fault, with_ranges=False)
        return await send_file(request, file, fault, state.ledger.byte_counter(f"{task_id}/content"))

    async def _fault_response(
        self,
        request: web.BaseRequest,
        kind: str,
        fault: Fault,
        request_id: str,
        right_answer: SimulatedAnswer | None = None,
    ) -> web.StreamResponse:
        """Respond as a fault says that is not about files."""
        response = await self._try_fault_response(request, kind, fault, request_id, right_answer)
        if response is None:
            raise NotImplementedError(f"the fault {fault.name} of {kind}")
        return response

    async def _try_fault_response(
        self,
        request: web.BaseRequest,
        kind: str,
        fault: Fault,
        request_id: str,
        right_answer: SimulatedAnswer | None,
    ) -> web.StreamResponse | None:
        self._state.ledger.faults[f"{kind} {fault.name}"] += 1
        return await answers.respond_with_fault(
            request, fault, request_id=request_id, right_answer=right_answer, other_origin=self.other_origin
        )


def _key(request: web.BaseRequest) -> str:
    """Return the key of a request, with or without the word Bearer (fact F2)."""
    words = request.headers.get("Authorization", "").split()
    return words[-1] if words and words != ["Bearer"] else ""


_OWNERS = (("seedance", "byteplus"), ("MiniMax", "minimax"))


def _models() -> dict[str, Json]:
    models = [
        {
            "id": model,
            "object": "model",
            "owned_by": next((owner for part, owner in _OWNERS if part in model), "ali"),
            "supported_endpoint_types": ["openai-video"],
        }
        for model in catalog.load_catalog().models
    ]
    return {"object": "list", "data": models, "success": True}


_MAX_BODY_BYTES = 128 * 1024**2
"""The gateway's own limit (fact F27)."""
_SHUTDOWN_TIMEOUT_S = 0.2

_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Simulator:
    """
    A simulated gateway on real sockets.

    Use ``async with Simulator(scenario) as simulator``, or `start` and `stop`.

    Attributes:
        base_url: Empty until the simulator is started.
        ledger: What was accepted, and counts of all requests. It can be read after `stop`, too.
    """

    def __init__(
        self,
        scenario: Scenario | None = None,
        *,
        ledger_path: Path | None = None,
        pricer: Pricer | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Create a simulator; nothing happens before `start`.

        Args:
            scenario: None for the shipped one named ``demo``.
            ledger_path: A file of JSON lines that accepted submissions are appended to. A simulator that is
                started again with the same file knows its tasks.
            pricer: Says what it charges; None for the prices that come with the program.
            port: 0 for any free port. The asset origins always use free ports.
            clock: Seconds that never decrease.
        """
        self.ledger = SubmissionLedger()
        self.base_url = ""
        self._scenario = scenario or load_scenario("demo")
        self._ledger_path = ledger_path
        self._pricer = pricer or Pricer([shipped_prices()], load_catalog())
        self._host = host
        self._port = port
        self._clock = clock
        self._runners: list[web.ServerRunner] = []

    async def start(self) -> str:
        """
        Start to listen, and return the base URL, such as ``http://127.0.0.1:40123``.

        Raises:
            OSError: The port is in use, or the ledger's file can't be written.
            UsageError: The ledger's file is not a ledger.
        """
        if self._ledger_path:
            await self.ledger.open(self._ledger_path)
        state = SimulatorState(self._scenario, self.ledger, self._clock, self._pricer)
        gateway, cdn, other = SimulatedGateway(state), AssetServer(state), AssetServer(state)
        try:
            gateway.other_origin = cdn.other_origin = await self._listen(other.handle, 0)
            gateway.asset_origin = await self._listen(cdn.handle, 0)
            gateway.origin = await self._listen(gateway.handle, self._port)
        except BaseException:
            await self.stop()
            raise
        self.base_url = gateway.origin
        return self.base_url

    async def stop(self) -> None:
        """Stop at once, and cut off answers that are being sent."""
        while self._runners:
            await self._runners.pop().cleanup()
        await self.ledger.close()

    async def _listen(self, handle: _Handler, port: int) -> str:
        server = web.Server(
            handle, request_factory=_large_request, handler_cancellation=True, access_log=None
        )
        runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_TIMEOUT_S)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, self._host, port, backlog=1024).start()
        bound: int = runner.addresses[0][1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{bound}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


async def serve(
    scenario: Scenario | None,
    *,
    port: int,
    ledger_path: Path | None,
    pricer: Pricer | None = None,
    ready: Callable[[str], None],
) -> None:
    """
    Run a simulator until this is canceled.

    Args:
        pricer: As for `Simulator`.
        ready: Is called with the base URL once it can be used.
    """
    simulator = Simulator(scenario, port=port, ledger_path=ledger_path, pricer=pricer)
    try:
        ready(await simulator.start())
        await asyncio.Event().wait()
    finally:
        await simulator.stop()


def _large_request(
    message: Any, payload: Any, protocol: Any, writer: Any, task: asyncio.Task[None]
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_MAX_BODY_BYTES)

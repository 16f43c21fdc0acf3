"""Every wait for the network has an end: each coroutine that waits, what bounds it, and the test that holds that."""

from __future__ import annotations

import ast

import pytest

from tests.docs.sections import ROOT

_POST = "timeouts.connect and timeouts.submit, once for the request"
_GET = "timeouts.connect and timeouts.poll, for each of 4 requests at most"
_HEAD = "timeouts.connect and timeouts.stall, for each of 6 requests at most"
_BODY = "timeouts.stall between two pieces, timeouts.least_speed over a minute"
_ASSET = "timeouts.download for one asset; 30 s after a signal; --drain-time"
_DISK = "the disk's; an asset's limit cancels it"

WAITS = {
    "connector:has_surplus": ("0.1 s", "gateway/test_submit_connections.py"),
    "connector:connect": ("timeouts.connect", "gateway/test_not_sent.py"),
    "gateway/client:_exchange": (f"{_POST}; {_GET}", "gateway/test_submit_once.py"),
    "gateway/client:_get": (_GET, "gateway/test_polls.py"),
    "assets/fetch:fetch": (f"retry.attempts without progress; {_ASSET}", "assets/test_fetch.py"),
    "assets/fetch:_send": ("5 redirects", "assets/test_url_policy.py"),
    "assets/fetch:_send_hop": (_HEAD, "assets/test_slow_hosts.py"),
    "assets/fetch:_in_thread": (_DISK, "engine/test_deliveries.py"),
    "assets/receive:receive": (_DISK, "engine/test_deliveries.py"),
    "assets/receive:arriving": (_BODY, "assets/test_slow_hosts.py"),
    "worker/deliver:_fetch": (_ASSET, "engine/test_deliveries.py"),
    "worker/deliver:_query_task": ("retry.attempts, each as a query", "engine/test_deliveries.py"),
    "worker/deliver:_search": ("8 addresses, tried again for 2 minutes", "engine/test_deliveries.py"),
    "worker/deliver:sleep": ("a signal, or the end of --drain-time", "engine/test_deliveries.py"),
    "api/run_result:_post": ("10 s", "api/test_notify.py"),
    "commands:run_command": ("30 s for notify, on_asset.timeout", "api/test_notify.py"),
    "commands:_kill": ("5 s", "api/test_notify.py"),
    "checks/pool:measure": ("2 minutes for one video", "checks/test_pool.py"),
    "checks/pool:_end": ("the end of a process that was killed", "checks/test_pool.py"),
    "checks/video_checker:finish": ("the bounds of each check; a signal", "checks/test_running.py"),
}
"""By module and coroutine: the bound, and the file of the tests that hold it."""

_PRIMITIVES = frozenset(
    {
        "run_in_executor",
        "readany",
        "read",
        "sleep",
        "communicate",
        "wait",
        "get",
        "post",
        "connect",
        "resolve",
    }
)
_PASS_ON = frozenset(
    {
        "worker/submit:submit",
        "worker/poll:poll",
        "gateway/client:_post",
        "gateway/client:_read_bounded",
        "assets/url_policy:_gateway_scopes",
        "assets/url_policy:resolve",
        "commands:_read",
    }
)
"""Coroutines whose callers, in the table, bound what they wait for."""


def waiting() -> set[str]:
    """Find the coroutines that await the network, a thread or a pause themselves."""
    found = set()
    modules = {name.partition(":")[0] for name in WAITS} | {name.partition(":")[0] for name in _PASS_ON}
    for module in modules:
        tree = ast.parse((ROOT / f"runner/{module}.py").read_text(encoding="utf-8"))
        for function in ast.walk(tree):
            if isinstance(function, ast.AsyncFunctionDef) and any(map(_is_primitive, ast.walk(function))):
                found.add(f"{module}:{function.name}")
    return found


def _is_primitive(node: ast.AST) -> bool:
    if not isinstance(node, ast.Await):
        return False
    call = node.value
    return (
        isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in _PRIMITIVES
    )


def test_every_wait_is_in_the_table() -> None:
    """A new wait needs a bound, and a test of it."""
    assert set() == waiting() - set(WAITS) - _PASS_ON


@pytest.mark.parametrize("name", WAITS)
def test_the_table_names_what_exists(name: str) -> None:
    """Each coroutine and each file of tests is there."""
    module, _, function = name.partition(":")
    bound, tests = WAITS[name]

    assert bound
    assert f"async def {function}(" in (ROOT / f"runner/{module}.py").read_text(encoding="utf-8")
    assert (ROOT / "tests" / tests).is_file()

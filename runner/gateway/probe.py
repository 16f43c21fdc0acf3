"""What a free request shows of the gateway: whether it is there, what it offers, and its clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC
from email.utils import parsedate_to_datetime

from runner import jsontext
from runner.core.classify import classify_poll
from runner.core.model import Failure, FailureClass, Json
from runner.core.outcome import Denied, Polled, Probed
from runner.gateway.answer import Answer


def read_probe(answer: Answer, secrets: tuple[str, ...] = ()) -> Probed:
    """
    Say what the answer to a probe shows.

    The gateway answers when it sends JSON with a status below 500: even a refused
    key proves that it is back.
    """
    server_at = _server_time(answer.headers)
    try:
        document = jsontext.loads(answer.body)
    except (ValueError, RecursionError):
        return Probed(False, server_at=server_at, failure=_not_json(answer.status))
    if answer.status == 200:
        return Probed(True, _model_ids(document), server_at)
    # The same refusals as for a query; the clock matters only for its Retry-After.
    outcome = classify_poll(answer.status, answer.headers, answer.body, 0.0, secrets=secrets)
    if isinstance(outcome, Polled):
        return Probed(False, server_at=server_at, failure=_not_json(answer.status))
    failure = outcome.failure
    if not isinstance(outcome, Denied):
        failure = replace(failure, cls=FailureClass.UNAVAILABLE)
    return Probed(400 <= answer.status < 500, server_at=server_at, failure=failure)


def _not_json(status: int) -> Failure:
    message = f"GET /v1/models answered HTTP {status} without a list of models; is the base URL right?"
    return Failure(FailureClass.UNAVAILABLE, message, http_status=status)


def _model_ids(document: Json) -> tuple[str, ...]:
    entries = document.get("data") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        return ()
    ids = (entry.get("id") for entry in entries if isinstance(entry, dict))
    return tuple(model for model in ids if isinstance(model, str))


def _server_time(headers: Mapping[str, str]) -> float | None:
    try:
        date = parsedate_to_datetime(headers["Date"])
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (KeyError, ValueError, OverflowError):
        return None

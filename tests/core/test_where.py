"""Conditions on jobs."""

from __future__ import annotations

import pytest

from runner.core.where import parse_condition
from tests.results.records import succeeded

JOB = succeeded(
    "sky-1",
    metadata={
        "split": "test",
        "n": 4,
        "ok": True,
        "score": "0.5",
        "a.b": 1,
        "deep": {"x": "y"},
        "model": "mine",
    },
    request={"seed": 12, "prompt": "A = B"},
)


@pytest.mark.parametrize(
    "text",
    [
        "split=test",
        "split = t?s*",
        "model=wan*",
        "metadata.model=mine",
        "seed>3",
        "seed=12",
        "seed=12.0",
        "seed>=12",
        "seed<=12",
        "n<10",
        "score<0.75",
        "score=0.5",
        "ok=true",
        "a.b=1",
        "metadata.deep.x=y",
        "request.prompt=A = B",
        "split!=train",
        "absent!=anything",
        "status=succeeded",
        "job_id>sky-0",
        "id=sky-*",
    ],
)
def test_met(text: str) -> None:
    """Numbers are compared as numbers, texts as patterns, and the job's own fields come first."""
    assert parse_condition(text).matches(JOB)


@pytest.mark.parametrize(
    "text",
    [
        "split=Test",
        "split=tes",
        "seed>12",
        "seed<3",
        "absent=*",
        "absent<3",
        "split>3",
        "ok>0",
        "ok=1",
        "status!=succ*",
    ],
)
def test_not_met(text: str) -> None:
    """A job without a value meets nothing but that it has another one; a text is never greater than a number."""
    assert not parse_condition(text).matches(JOB)


@pytest.mark.parametrize("text", ["", "split", "=x", ">3", "split~x", "seed>", "seed<= "])
def test_no_condition(text: str) -> None:
    """Another form is an error that shows the right ones."""
    with pytest.raises(ValueError, match="is not a condition: write NAME=VALUE"):
        parse_condition(text)

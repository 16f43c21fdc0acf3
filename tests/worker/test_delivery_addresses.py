"""Where a delivery looks for an asset: every address, the route, and fresh addresses from the task."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.assets.request import NotFetched
from runner.core.lifecycle import State
from runner.core.model import AssetKind, FailureClass
from runner.core.outcomes import PollOutcome, RemoteStatus, Transient
from tests.engine.answers import POLL_403, POLL_502, UNKNOWN, failure
from tests.worker.deliveries import (
    GONE,
    OTHER_VIDEO,
    ROUTE,
    VIDEO,
    Setting,
    task,
)
from tests.worker.fakes import WALL_AT_0


async def test_every_address_is_tried_before_a_video_is_given_up(tmp_path: Path) -> None:
    """
    Those of the answer, those of a fresh answer, the gateway's route, and those of one more answer.
    """
    setting = Setting(
        tmp_path, {VIDEO: GONE, OTHER_VIDEO: GONE, ROUTE: GONE}, [task(OTHER_VIDEO), task(VIDEO)]
    )

    job = await setting.deliver(task(VIDEO))

    assert [VIDEO, OTHER_VIDEO, ROUTE] == setting.urls
    assert (State.UNDELIVERED, GONE.failure, 2) == (job.state, job.error, job.polls)
    assert WALL_AT_0 + setting.clock.at == job.finished_at


@pytest.mark.parametrize(
    ("found", "state", "polls"), [("video/mp4", State.SUCCEEDED, 0), (GONE, State.UNDELIVERED, 2)]
)
async def test_answer_without_addresses_leads_to_the_route(
    found: str | NotFetched, state: State, polls: int, tmp_path: Path
) -> None:
    """
    To ask again at once would hear the same, so that comes after the gateway's own route.
    """
    setting = Setting(tmp_path, {ROUTE: found}, [task()])

    job = await setting.deliver(task())

    assert (state, polls, [ROUTE]) == (job.state, job.polls, setting.urls)


async def test_query_for_fresh_addresses_is_tried_again_after_a_wait(tmp_path: Path) -> None:
    """
    Trouble on the way is waited out, longer each time, and a server's wish for more is heeded.
    """
    throttled = Transient(failure(FailureClass.RATE_LIMITED), retry_after_s=30.0)
    setting = Setting(tmp_path, answers=[POLL_502, throttled, task(VIDEO)])

    job = await setting.deliver(None)

    assert (State.SUCCEEDED, 3) == (job.state, job.polls)
    assert [1.0, 30.0] == setting.clock.sleeps


@pytest.mark.parametrize(("answer", "polls"), [(POLL_502, 3), (POLL_403, 1), (UNKNOWN, 1)])
async def test_query_that_shows_no_task_ends_the_search(
    answer: PollOutcome, polls: int, tmp_path: Path
) -> None:
    """
    It is asked as often as the manifest allows, once where asking again would not help; the route comes last.
    """
    setting = Setting(tmp_path, {ROUTE: "video/mp4"}, [answer])

    job = await setting.deliver(None)

    assert (State.SUCCEEDED, polls, [ROUTE]) == (job.state, job.polls, setting.urls)


async def test_each_step_of_a_search_queries_the_task_once(tmp_path: Path) -> None:
    """At the start, and twice after the route gave nothing."""
    setting = Setting(tmp_path, {ROUTE: GONE}, [POLL_403])

    job = await setting.deliver(None)

    assert (State.UNDELIVERED, 3, [ROUTE]) == (job.state, job.polls, setting.urls)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (POLL_502, "no fresh address: as the test wants it"),
        (POLL_403, "no fresh address: as the test wants it"),
        (task(status=RemoteStatus.FAILED), "the API now calls the task 'word', and names no address"),
    ],
)
async def test_last_frame_is_not_given_up_because_of_a_query(
    answer: PollOutcome, why: str, tmp_path: Path
) -> None:
    """
    That no answer showed the task does not mean that the API names no last frame: a later run asks again.
    """
    setting = Setting(tmp_path, {}, [answer], {"return_last_frame": True})
    setting.keep(AssetKind.VIDEO, "assets/a.mp4", "kept")

    job = await setting.deliver(None)

    assert (State.UNDELIVERED, ()) == (job.state, job.warnings)
    assert why == (job.error and job.error.message)
    assert ["assets/a.mp4"] == [asset.path for asset in setting.store.saved_assets]


async def test_task_that_is_no_longer_called_succeeded_names_no_address(tmp_path: Path) -> None:
    """
    Addresses of a task that failed meanwhile are not for us, and the route is tried.
    """
    failed = task(OTHER_VIDEO, status=RemoteStatus.FAILED)
    setting = Setting(tmp_path, {ROUTE: "video/mp4"}, [failed])

    job = await setting.deliver(None)

    assert (State.SUCCEEDED, [ROUTE]) == (job.state, setting.urls)

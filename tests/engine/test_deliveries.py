"""Deliveries: their limits of time, which reason they give, and whose trouble a disk is."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest

from runner.assets.request import FetchFailure, NotFetched
from runner.core.addresses import MAX_URLS
from runner.core.lifecycle import State
from runner.core.model import FailureClass
from runner.core.outcomes import Polled, RemoteStatus, RemoteTask
from runner.core.stop import Stop, StopReason
from runner.disk import FileUnwritable
from runner.engine.engine import DOWNLOAD_GRACE_S, Engine
from tests.engine.answers import SUCCEEDED, failure
from tests.engine.fakes import FakeApi, FakeDownloader, specs
from tests.engine.harness import EngineHarness, FinishedRun

INTERRUPTED = Stop(StopReason.INTERRUPTED, "interrupted")


def not_fetched(message: str, *, may_become_ready: bool = False) -> NotFetched:
    return NotFetched(FetchFailure.EXPIRED, failure(FailureClass.DOWNLOAD_FAILED, message), may_become_ready)


def run(
    folder: Path, downloader: FakeDownloader, *, jobs: int = 1, urls: int = 1, **more: Any
) -> FinishedRun:
    """Run some jobs whose tasks succeed at once, with some addresses each."""
    answer = SUCCEEDED
    if urls != 1:
        addresses = tuple(f"https://cdn.example/{n}.mp4" for n in range(urls))
        answer = Polled(RemoteTask((), RemoteStatus.SUCCEEDED, "completed", video_urls=addresses))
    harness = EngineHarness(folder, FakeApi(on_poll=lambda task, nth: answer), downloader=downloader)
    harness.add_jobs(specs(jobs))
    return harness.run(**more)


def interrupt_after(seconds: float) -> Any:
    async def stop(engine: Engine, store: Any) -> None:
        await asyncio.sleep(seconds)
        engine.stop(INTERRUPTED)

    return stop


def test_a_download_without_end_is_given_up_after_hours(tmp_path: Path) -> None:
    """An asset has two hours, with all its addresses; the job is undelivered then, and its task is kept."""
    done = run(tmp_path, FakeDownloader(takes_s=1e6))

    assert 1 == done.counts[State.UNDELIVERED]
    assert done.took_s < 7300.0
    error = next(iter(done.records.values())).error
    assert error is not None
    assert "timeouts.download" in error.message


def test_a_signal_waits_for_downloads_only_so_long(tmp_path: Path) -> None:
    """A download that does not end in the grace after the first signal is left to the next run."""
    done = run(tmp_path, FakeDownloader(takes_s=1e6), meanwhile=interrupt_after(10.0))

    assert 1 == done.counts[State.DOWNLOADING]
    assert 10.0 + DOWNLOAD_GRACE_S <= done.took_s < 10.0 + DOWNLOAD_GRACE_S + 1.0


def test_the_drain_time_ends_downloads(tmp_path: Path) -> None:
    """`--drain-time` is how long draining takes at most, whatever a host does."""
    done = run(tmp_path, FakeDownloader(takes_s=1e6), run_s=10.0, drain_s=3.0)

    assert 1 == done.counts[State.DOWNLOADING]
    assert done.took_s < 14.0


def test_a_download_that_waits_to_be_tried_again_is_not_in_hand(tmp_path: Path) -> None:
    """A signal ends the pause at once; the job continues in the next run."""
    downloader = FakeDownloader(lambda name, nth: not_fetched("404", may_become_ready=True), takes_s=0.01)
    harness = EngineHarness(
        tmp_path, FakeApi(on_poll=lambda task, nth: SUCCEEDED), downloader=downloader, draw=lambda: 0.999
    )
    harness.add_jobs(specs(1))

    stopped = harness.run(meanwhile=interrupt_after(2.0))

    assert 1 == stopped.counts[State.DOWNLOADING]
    assert stopped.took_s < 2.5


def test_an_address_that_becomes_ready_is_tried_again(tmp_path: Path) -> None:
    """An address and the content route give nothing at first: with pauses between, the job still succeeds."""
    answers = [not_fetched("HTTP 404", may_become_ready=True)] * 4
    done = run(tmp_path, FakeDownloader(lambda name, nth: answers[nth] if nth < len(answers) else None))

    assert 1 == done.counts[State.SUCCEEDED]


def test_an_address_that_stays_dead_ends_soon(tmp_path: Path) -> None:
    """The tries for an address that may become ready are bounded."""
    downloader = FakeDownloader(lambda name, nth: not_fetched("HTTP 404", may_become_ready=True))
    done = run(tmp_path, downloader)

    assert 1 == done.counts[State.UNDELIVERED]
    assert done.took_s < 60.0


def test_the_reason_is_that_of_the_first_address(tmp_path: Path) -> None:
    """What is wrong with the address that the API named counts, not that the last resort had nothing either."""
    done = run(tmp_path, FakeDownloader(lambda name, nth: not_fetched(f"reason {nth}")), urls=3)

    error = next(iter(done.records.values())).error
    assert error is not None
    assert "reason 0" == error.message


def test_without_an_address_both_reasons_are_told(tmp_path: Path) -> None:
    """That the API named none comes first, then what the content route said."""
    done = run(tmp_path, FakeDownloader(lambda name, nth: not_fetched("/content returned HTTP 404")), urls=0)

    error = next(iter(done.records.values())).error
    assert error is not None
    assert "named no address for its video; /content returned HTTP 404" in error.message


def test_few_of_many_addresses_are_tried(tmp_path: Path) -> None:
    """An answer with 30,000 addresses does not make 30,000 requests."""
    tried: list[int] = []

    def answer(name: str, nth: int) -> NotFetched:
        tried.append(nth)
        return not_fetched("HTTP 404")

    run(tmp_path, FakeDownloader(answer, takes_s=0.01), urls=30_000)

    assert MAX_URLS <= len(tried) <= MAX_URLS + 2


def test_a_file_that_cannot_be_written_is_its_jobs_trouble(tmp_path: Path) -> None:
    """One file's name is taken: that job is undelivered, and the others succeed."""
    downloader = FakeDownloader(
        lambda name, nth: FileUnwritable("a.mp4 can't be written") if name.endswith("001") else None
    )
    done = run(tmp_path, downloader, jobs=4)

    assert (3, 1) == (done.counts[State.SUCCEEDED], done.counts[State.UNDELIVERED])
    assert [] == done.stop_reasons


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_a_disk_that_fails_stops_the_run_once(number: int, tmp_path: Path) -> None:
    """One message that says what to do, no word of a bug, and the jobs stay as they are."""
    done = run(tmp_path, FakeDownloader(lambda name, nth: OSError(number, "as the test wants it")), jobs=4)

    assert 1 == len(done.stop_reasons)
    assert done.stop_reasons[0] in ("store", "disk")
    assert "bug" not in done.engine.stops[0].message
    assert 3 == done.engine.stops[0].exit_code
    assert 0 == done.counts[State.UNDELIVERED] + done.counts[State.FAILED]

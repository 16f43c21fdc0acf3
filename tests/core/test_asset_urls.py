"""In which order the URLs of an asset are tried, and when they expire."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.core.addresses import DEFAULT_LIFETIME_S, NextStep, UrlSearch, expires_at


def all_steps(search: UrlSearch, answers: list[list[str]]) -> list[str | NextStep]:
    """Run a search to its end, with one answer for each poll."""
    steps: list[str | NextStep] = []
    while True:
        step = search.next_step()
        steps.append(step)
        if step is NextStep.GIVE_UP:
            return steps
        if step is NextStep.POLL_AGAIN and answers:
            search.offer(answers.pop(0))


def test_new_urls_are_tried_before_the_route() -> None:
    """
    If no URL works, the task is polled for new ones before the gateway's own route is tried.
    """
    search = UrlSearch("route")
    search.offer(["a", "b"])

    assert [
        "a",
        "b",
        NextStep.POLL_AGAIN,
        "fresh",
        "route",
        NextStep.POLL_AGAIN,
        NextStep.GIVE_UP,
    ] == all_steps(search, [["a", "fresh"]])


def test_success_without_a_url_tries_the_route_first() -> None:
    """
    After a success without a URL the route is tried, then the task is polled twice.
    """
    search = UrlSearch("route")
    search.offer([])

    assert ["route", NextStep.POLL_AGAIN, "late", NextStep.POLL_AGAIN, NextStep.GIVE_UP] == all_steps(
        search, [["late"]]
    )


def test_last_frame_has_no_route() -> None:
    """
    Without a route of the gateway, only polls are left.
    """
    search = UrlSearch(None)
    search.offer(["a"])

    assert ["a", NextStep.POLL_AGAIN, NextStep.POLL_AGAIN, NextStep.GIVE_UP] == all_steps(search, [])


def test_a_search_that_starts_again_has_all_its_steps() -> None:
    """What failed may work a little later: URLs, polls and the route are all tried once more."""
    search = UrlSearch("route")
    search.offer(["a"])
    first = all_steps(search, [])

    search.start_again()
    search.offer(["a"])

    assert first == all_steps(search, [])


@given(st.lists(st.lists(st.sampled_from("abc"))))
def test_search_ends_and_tries_no_url_twice(answers: list[list[str]]) -> None:
    """
    Whatever the polls return, the search ends, and no URL is tried twice.
    """
    tried = [step for step in all_steps(UrlSearch("route"), answers) if isinstance(step, str)]

    assert len(tried) == len(set(tried))


def test_amazon_and_volcengine_signatures_are_read() -> None:
    """
    A signature of date and duration expires that long after its date.
    """
    url = "https://tos.example/v.mp4?X-Tos-Date=20261121T020000Z&X-Tos-Expires=86400&X-Tos-Signature=x"

    assert 1795312800.0 == expires_at(url, seen_at=0.0)


@given(st.text())
def test_any_text_has_an_expiry(text: str) -> None:
    """
    No URL, however odd, is an error.
    """
    assert isinstance(expires_at(f"https://cdn.example/{text}", seen_at=0.0), float)
    assert DEFAULT_LIFETIME_S == expires_at("https://cdn.example/?Expires=soon", seen_at=0.0)

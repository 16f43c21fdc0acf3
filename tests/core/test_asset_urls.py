"""The order in which an asset is searched for, and when its addresses expire."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.core.asset_urls import DEFAULT_LIFETIME_S, NextStep, UrlSearch, expires_at


def moves(search: UrlSearch, answers: list[list[str]]) -> list[str | NextStep]:
    """Play a search to its end, offering one answer at each question."""
    found: list[str | NextStep] = []
    while True:
        move = search.next_step()
        found.append(move)
        if move is NextStep.GIVE_UP:
            return found
        if move is NextStep.POLL_AGAIN and answers:
            search.offer(answers.pop(0))


def test_expired_address_is_asked_for_again_then_the_route() -> None:
    """
    Where no address works, the task is asked for fresh ones before the gateway's own route.
    """
    search = UrlSearch("route")
    search.offer(["a", "b"])

    assert ["a", "b", NextStep.POLL_AGAIN, "fresh", "route", NextStep.POLL_AGAIN, NextStep.GIVE_UP] == moves(
        search, [["a", "fresh"]]
    )


def test_success_without_an_address_tries_the_route_first() -> None:
    """
    A success that names no address is fetched from the route, then asked for twice more.
    """
    search = UrlSearch("route")
    search.offer([])

    assert ["route", NextStep.POLL_AGAIN, "late", NextStep.POLL_AGAIN, NextStep.GIVE_UP] == moves(
        search, [["late"]]
    )


def test_last_frame_has_no_route() -> None:
    """
    Without a route of the gateway's, the questions alone are left.
    """
    search = UrlSearch(None)
    search.offer(["a"])

    assert ["a", NextStep.POLL_AGAIN, NextStep.POLL_AGAIN, NextStep.GIVE_UP] == moves(search, [])


@given(st.lists(st.lists(st.sampled_from("abc"))))
def test_search_ends_and_tries_no_address_twice(answers: list[list[str]]) -> None:
    """
    Whatever the task answers, the search ends, and no address is tried twice.
    """
    tried = [move for move in moves(UrlSearch("route"), answers) if isinstance(move, str)]

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
    No address, however odd, is an error.
    """
    assert isinstance(expires_at(f"https://cdn.example/{text}", seen_at=0.0), float)
    assert DEFAULT_LIFETIME_S == expires_at("https://cdn.example/?Expires=soon", seen_at=0.0)

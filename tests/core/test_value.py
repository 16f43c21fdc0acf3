"""Immutable values: what holds for a frozen, slotted dataclass holds for them."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field
from pathlib import Path

import pytest

from runner.core.value import frozen


@frozen
class Film:
    """A value with every kind of field."""

    name: str
    seconds: int = 5
    words: Mapping[str, str] = field(default_factory=dict)
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Peer:
    """The same as the library makes it."""

    name: str
    seconds: int = 5
    words: Mapping[str, str] = field(default_factory=dict)
    secret: str = field(default="", repr=False)


@frozen(kw_only=True)
class Named:
    """One whose fields are given by name, in any order of defaults."""

    first: int = 1
    second: int


@frozen
class Long(Film):
    """One that adds to another."""

    chapters: int = 2


@frozen
class Size:
    """One that can be a key."""

    width: int
    height: int


@frozen
class Blank:
    """One without fields."""


def test_it_looks_as_the_librarys() -> None:
    """Messages and reports read the same, and a secret is not shown."""
    assert repr(Peer("a", 8, secret="sk")).replace("Peer", "Film") == repr(Film("a", 8, secret="sk"))
    assert "Blank()" == repr(Blank())


def test_it_is_made_as_the_librarys() -> None:
    """Editors and generators of tests read the constructor's parameters and types."""
    peer, own = inspect.signature(Peer.__init__), inspect.signature(Film.__init__)

    assert [*peer.parameters] == [*own.parameters]
    assert Peer.__match_args__ == Film.__match_args__  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="Film.__init__\\(\\) missing 1 required positional argument: 'name'"):
        Film()  # type: ignore[call-arg]


def test_defaults_are_made_for_each() -> None:
    """What a factory makes is shared by no two of them."""
    assert Film("a").words is not Film("a").words
    assert ("a", 5, "") == (Film("a").name, Film("a").seconds, Film("a").secret)


def test_fields_by_name() -> None:
    """A field without a default may follow one with a default where both are named."""
    assert (1, 2) == (Named(second=2).first, Named(second=2).second)
    with pytest.raises(TypeError):
        Named(1, second=2)  # type: ignore[misc]


def test_equal_in_its_class_only() -> None:
    """Equal fields make equal values and hashes; another class with the same fields is something else."""
    assert Size(1, 2) == Size(1, 2)
    assert hash(Size(1, 2)) == hash(Size(1, 2))
    assert Size(1, 2) != Size(2, 1)
    assert Size(1, 2) != (1, 2)
    assert Film("a") != Long("a")
    assert Film("a") != Peer("a")
    assert {Blank()} == {Blank(), Blank()}


def test_without_a_hash_where_a_field_has_none() -> None:
    """As with a tuple: what could change can't be a key."""
    with pytest.raises(TypeError, match="unhashable type: 'dict'"):
        hash(Film("a"))


def test_a_value_that_adds_to_another() -> None:
    """Its fields come after those of its base."""
    assert "Long(name='a', seconds=5, words={}, chapters=3)" == repr(Long("a", chapters=3))


def test_nothing_changes() -> None:
    """Neither a field nor a new name can be set, and nothing deleted."""
    film = Film("a")

    with pytest.raises(FrozenInstanceError):
        film.name = "b"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        film.other = "b"  # type: ignore[attr-defined]
    with pytest.raises(FrozenInstanceError):
        del film.name
    assert not hasattr(film, "__dict__")


def test_the_librarys_functions_work() -> None:
    """A changed copy, a dictionary, the fields, and patterns."""
    film = dataclasses.replace(Film("a"), seconds=8)

    assert Film("a", 8) == film
    assert {"name": "a", "seconds": 8, "words": {}, "secret": ""} == dataclasses.asdict(film)
    assert ["name", "seconds", "words", "secret"] == [one.name for one in dataclasses.fields(film)]
    match film:
        case Film(name, seconds):
            assert ("a", 8) == (name, seconds)
        case _:
            pytest.fail("no match")


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda film: pickle.loads(pickle.dumps(film))])
def test_copies_are_equal(again: object) -> None:
    """A program may copy values, or send them to another process."""
    assert callable(again)
    assert Film("a", words={"b": "c"}) == again(Film("a", words={"b": "c"}))


def test_every_value_of_the_program_is_one() -> None:
    """A frozen dataclass costs every start five times as much."""
    sources = (Path(__file__).parents[2] / "runner").rglob("*.py")
    dear = [path.name for path in sources if "\n@dataclass(frozen" in path.read_text(encoding="utf-8")]

    assert [] == dear

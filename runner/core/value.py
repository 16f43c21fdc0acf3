"""
Values: immutable classes that cost little to define.

`@frozen` makes what `@dataclass(frozen=True, slots=True)` makes, from the same fields, and `replace`,
`fields` and `asdict` of `dataclasses` work on it. It exists because Python compiles eight methods
for each such dataclass: 0.5 ms, where a run defines more than a hundred of them before its first
POST. Here the constructor alone is compiled, for 0.1 ms, and the rest is shared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform, overload

_Class = TypeVar("_Class", bound=type)


@overload
def frozen(cls: _Class, /) -> _Class: ...
@overload
def frozen(*, kw_only: bool = False) -> Callable[[_Class], _Class]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type | None = None, /, *, kw_only: bool = False) -> Any:
    """
    Make a class an immutable value: equal to those of its class with equal fields, hashable by them.

    >>> @frozen
    ... class Size:
    ...     width: int
    ...     height: int = 720
    >>> Size(1280)
    Size(width=1280, height=720)
    >>> Size(1280) == Size(1280, 720), Size(1280) == (1280, 720)
    (True, False)
    >>> Size(1280).width = 640
    Traceback (most recent call last):
    dataclasses.FrozenInstanceError: cannot assign to field 'width'
    """

    def make(cls: type) -> Any:
        made: Any = dataclass(init=False, repr=False, eq=False, slots=True, kw_only=kw_only)(cls)
        own: tuple[Field[Any], ...] = fields(made)
        equal, hashed = _comparison(own)
        made.__init__, made.__repr__ = _constructor(made, own), _representation(own)
        made.__eq__, made.__hash__ = equal, hashed
        made.__setattr__, made.__delattr__, made.__setstate__ = _refuse_to_set, _refuse_to_delete, _restore
        return made

    return make if cls is None else make(cls)


def _constructor(cls: Any, own: tuple[Field[Any], ...]) -> Callable[..., None]:
    """Compile `__init__`; it fills the slots by their descriptors, the quickest way around `__setattr__`."""
    scope: dict[str, Any] = {"_MISSING": MISSING}
    parameters, lines = [], []
    for one in sorted(own, key=lambda one: bool(one.kw_only)):
        if one.kw_only and "*" not in parameters:
            parameters.append("*")
        scope[f"_fill_{one.name}"] = getattr(cls, one.name).__set__
        given = one.name
        if one.default_factory is not MISSING:
            scope[f"_make_{one.name}"] = one.default_factory
            parameters.append(f"{one.name}=_MISSING")
            given = f"_make_{one.name}() if {one.name} is _MISSING else {one.name}"
        elif one.default is not MISSING:
            scope[f"_default_{one.name}"] = one.default
            parameters.append(f"{one.name}=_default_{one.name}")
        else:
            parameters.append(one.name)
        lines.append(f"\n _fill_{one.name}(self, {given})")
    # S102: the text is made of the names of fields alone, which are identifiers.
    exec(f"def __init__(self, {', '.join(parameters)}):{''.join(lines) or ' pass'}", scope)  # noqa: S102
    constructor: Callable[..., None] = scope["__init__"]
    constructor.__qualname__ = f"{cls.__qualname__}.__init__"
    constructor.__annotations__ = {one.name: one.type for one in own}
    return constructor


def _representation(own: tuple[Field[Any], ...]) -> Callable[[Any], str]:
    shown = [one.name for one in own if one.repr]

    def represent(self: Any) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{type(self).__qualname__}({values})"

    return represent


def _comparison(own: tuple[Field[Any], ...]) -> tuple[Callable[[Any, object], bool], Callable[[Any], int]]:
    """Make `__eq__` and `__hash__`."""
    values = attrgetter(*(one.name for one in own)) if own else type

    def equal(self: Any, other: object) -> bool:
        # Of one class only: a rejection and a refused key are not the same news, whatever they say.
        return values(self) == values(other) if type(self) is type(other) else NotImplemented

    def hashed(self: Any) -> int:
        return hash(values(self))

    return equal, hashed


def _refuse_to_set(_: object, name: str, __: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(_: object, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _restore(self: object, state: tuple[None, dict[str, object]]) -> None:
    """Fill the slots of a copy, which `copy` and `pickle` would do by assignment."""
    for name, one in state[1].items():
        object.__setattr__(self, name, one)

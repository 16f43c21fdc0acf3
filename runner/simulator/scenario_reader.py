"""Read scenario files, and say where one is wrong."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec
import yaml

from runner.errors import ScenarioError
from runner.simulator.faults import FAULTS, Fault, Option, Place
from runner.simulator.scenario import (
    ErrorPlace,
    IdStyle,
    Match,
    Outage,
    RateLimit,
    Rule,
    Scenario,
    Shape,
    Span,
    TaskBehavior,
    TaskEnd,
    UrlPlace,
)

_SHIPPED = Path(__file__).parent / "scenarios"
_PHASES = ("queued", "running", "succeeded", "failed", "cancelled", "expired")

Node = Any
"""A node of PyYAML, which ships without types that would help."""
Value = TypeVar("Value")
Word = TypeVar("Word", bound=StrEnum)


def shipped_scenarios() -> list[str]:
    """Return the names of the scenarios that come with the program."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def load_scenario(path_or_name: str | Path) -> Scenario:
    """
    Read a scenario: a shipped one by its name, or a file.

    Raises:
        ScenarioError: There is no such file, or it is not a scenario; the message names file, line and column.
    """
    text = str(path_or_name)
    path = _SHIPPED / f"{text}.yaml" if text in shipped_scenarios() else Path(path_or_name)
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ScenarioError(
            f"the scenario {text} can't be read: {reason}",
            hint=f"give a file, or one of: {', '.join(shipped_scenarios())}",
        ) from None
    return parse_scenario(source, file=text, name=path.stem)


def parse_scenario(source: str, *, file: str, name: str = "scenario") -> Scenario:
    """
    Read a scenario from its text.

    Args:
        file: What messages call it.

    Raises:
        ScenarioError: The text is not a scenario.
    """
    try:
        root = yaml.compose(source, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        raise ScenarioError(f"{place}: {getattr(error, 'problem', None) or 'not YAML'}") from None
    if root is None:
        raise ScenarioError(f"{file}: the file is empty", hint="start it with: version: 1")
    return _Reader(file).scenario(root, name)


class _Reader:
    """Turns the nodes of one file into values; every complaint knows its place."""

    def __init__(self, file: str) -> None:
        self._file = file

    def scenario(self, root: Node, name: str) -> Scenario:
        """Read a whole file."""
        fields = self.mapping(root, "a scenario", {"version", *_names(Scenario)})
        if "version" not in fields or self.whole(fields.pop("version")) != 1:
            self.fail(root, "a scenario starts with version: 1")
        readers: dict[str, Callable[[Node], Any]] = {
            "name": self.text,
            "seed": self.whole,
            "generate_s": self.span,
            "keys": lambda node: tuple(map(self.text, self.items(node))),
            "rate_limit": self.rate_limit,
            "outages": lambda node: tuple(map(self.outage, self.items(node))),
            "url_valid_s": self.number,
            "job_label": self.pattern,
            "rules": lambda node: tuple(map(self.rule, self.items(node))),
        }
        return Scenario(**{"name": name, **{key: readers[key](node) for key, node in fields.items()}})

    def rate_limit(self, node: Node) -> RateLimit:
        """Read the rates past which requests are throttled; a burst of one where none is given."""
        fields = self.mapping(node, "rate_limit", _names(RateLimit))
        burst = self.whole(fields.pop("burst"), least=1) if "burst" in fields else 1
        return RateLimit(burst=burst, **{key: self.number(value, above=0) for key, value in fields.items()})

    def outage(self, node: Node) -> Outage:
        """Read a time at which every request is answered alike, however often."""
        fields = self.mapping(node, "an outage", _names(Outage))
        if not {"from_s", "to_s"} <= fields.keys():
            self.fail(node, "an outage needs from_s and to_s")
        values: dict[str, Any] = {key: self.number(fields[key]) for key in ("from_s", "to_s")}
        if "answer" in fields:
            fault = self.fault(fields["answer"], Place.SUBMIT)
            values["answer"] = msgspec.structs.replace(fault, times=None)
        return Outage(**values)

    def rule(self, node: Node) -> Rule:
        """Read which jobs a rule is about, and what befalls them."""
        fields = self.mapping(node, "a rule", {"name", "match", "task", *Place})
        faults = {
            place: tuple(self.fault(item, place) for item in self.items(fields[place]))
            for place in Place
            if place in fields
        }
        return Rule(
            name=self.text(fields["name"]) if "name" in fields else "",
            match=self.match(fields["match"]) if "match" in fields else Match(),
            task=self.plot(fields["task"]) if "task" in fields else TaskBehavior(),
            faults=faults,
        )

    def match(self, node: Node) -> Match:
        """Read what picks the jobs of a rule; everything that is given must fit."""
        readers: dict[str, Callable[[Node], Any]] = {
            "model": self.text,
            "prompt": self.text,
            "key": self.text,
            "nth": self.wholes,
            "every": lambda value: self.whole(value, least=1),
            "after": lambda value: self.whole(value, least=0),
            "probability": self.number,
            "seeds": self.wholes,
        }
        fields = self.mapping(node, "match", _names(Match))
        return Match(**{key: readers[key](value) for key, value in fields.items()})

    def plot(self, node: Node) -> TaskBehavior:
        """Read what becomes of the tasks of a rule."""
        fields = self.mapping(node, "task", _names(TaskBehavior))
        return TaskBehavior(**{key: self.plot_value(key, value) for key, value in fields.items()})

    def plot_value(self, key: str, node: Node) -> Any:
        """Read one value of a plot by its key."""
        words: dict[str, type[StrEnum]] = {
            "shape": Shape,
            "end": TaskEnd,
            "error_in": ErrorPlace,
            "ids": IdStyle,
            "url": UrlPlace,
        }
        if key in words:
            return self.word(node, words[key])
        if key == "generate_s":
            return self.span(node)
        if key == "words":
            phases = self.mapping(node, "words", _PHASES)
            return {phase: self.text(word) for phase, word in phases.items()}
        if key in ("code", "message"):
            return self.text(node)
        if key in ("last_frame", "moov_first"):
            return self.truth(node)
        return self.whole(node, least=0) if key == "asset_bytes" else self.number(node)

    def fault(self, node: Node, place: Place) -> Fault:
        """Read a fault's name, or a mapping of its name, `times` and its options."""
        if not isinstance(node, yaml.MappingNode):
            return Fault(self.fault_name(node, place))
        fields = self.mapping(node, "a fault")
        if "fault" not in fields:
            self.fail(node, "a fault needs its name, as in {fault: throttled, times: 2}")
        name = self.fault_name(fields.pop("fault"), place)
        times = self.times(fields.pop("times")) if "times" in fields else 1
        allowed = FAULTS[name].options_at(place)
        self.mapping(node, f"the fault {name}", {"fault", "times", *allowed})
        return Fault(
            name, times, {key: self.option(key, value, allowed[key]) for key, value in fields.items()}
        )

    def fault_name(self, node: Node, place: Place) -> str:
        """Read the name of a fault that can be played at this place."""
        name = self.text(node)
        fitting = [name for name, kind in FAULTS.items() if place in kind.places]
        if name not in fitting:
            self.fail(node, f"unknown fault '{name}' of {place}", name, fitting)
        return name

    def times(self, node: Node) -> int | None:
        """Read how often a fault is played: a number, or None for `always`."""
        return None if node.value == "always" else self.whole(node, least=1)

    def option(self, key: str, node: Node, default: Option) -> Option:
        """Read an option of a fault as the kind of value that its default is."""
        if isinstance(default, bool):
            return self.truth(node)
        value = self.number(node)
        if key == "at" and value > 1:
            self.fail(node, "a file can break off at a share of it from 0 to 1")
        return value

    # Values.

    def mapping(self, node: Node, what: str, allowed: Collection[str] | None = None) -> dict[str, Node]:
        """Read a mapping whose keys are among the allowed ones, each once; values are left as they are."""
        if not isinstance(node, yaml.MappingNode):
            self.fail(node, f"{what} must be a mapping")
        fields: dict[str, Node] = {}
        for key, value in node.value:
            name = self.text(key)
            if allowed is not None and name not in allowed:
                self.fail(key, f"unknown key '{name}' in {what}", name, allowed)
            if name in fields:
                self.fail(key, f"'{name}' stands twice in {what}")
            fields[name] = value
        return fields

    def items(self, node: Node) -> list[Node]:
        """Return the items of a list; a single value counts as a list of itself."""
        return list(node.value) if isinstance(node, yaml.SequenceNode) else [node]

    def text(self, node: Node) -> str:
        """Read a scalar as it is written."""
        if not isinstance(node, yaml.ScalarNode):
            self.fail(node, "expected text")
        return str(node.value)

    def number(self, node: Node, *, above: float | None = None) -> float:
        """Read a number that is not negative, or is above a bound."""
        try:
            value = float(self.text(node))
        except ValueError:
            self.fail(node, f"expected a number, not '{node.value}'")
        # Written so that not-a-number is refused as well.
        if not 0 <= value < 1e15 or (above is not None and value <= above):
            self.fail(node, f"'{node.value}' is out of range")
        return value

    def whole(self, node: Node, *, least: int | None = None) -> int:
        """Read a whole number."""
        text = self.text(node).replace("_", "")
        if not re.fullmatch(r"-?\d{1,18}", text):
            self.fail(node, f"expected a whole number, not '{node.value}'")
        if least is not None and int(text) < least:
            self.fail(node, f"'{node.value}' is less than {least}")
        return int(text)

    def wholes(self, node: Node) -> tuple[int, ...]:
        """Read one or several whole numbers."""
        return tuple(map(self.whole, self.items(node)))

    def truth(self, node: Node) -> bool:
        """Read true or false."""
        if self.text(node) not in ("true", "false"):
            self.fail(node, f"expected true or false, not '{node.value}'")
        return bool(node.value == "true")

    def span(self, node: Node) -> Span:
        """Read a number of seconds, or the least and the most of it."""
        bounds = [self.number(item) for item in self.items(node)]
        if len(bounds) not in (1, 2) or bounds[0] > bounds[-1]:
            self.fail(node, "expected a number of seconds, or [least, most]")
        return Span(bounds[0], bounds[-1])

    def pattern(self, node: Node) -> re.Pattern[str]:
        """Read a regular expression with a group."""
        try:
            pattern = re.compile(self.text(node))
        except re.error as error:
            self.fail(node, f"not a pattern: {error}")
        if pattern.groups < 1:
            self.fail(node, "the pattern needs a group, such as 'job (\\S+)'")
        return pattern

    def word(self, node: Node, words: type[Word]) -> Word:
        """Read one of a few words."""
        text = self.text(node)
        if text not in list(words):
            self.fail(node, f"unknown value '{text}'", text, list(words))
        return words(text)

    def fail(
        self, node: Node, message: str, wrong: str | None = None, allowed: Collection[str] = ()
    ) -> NoReturn:
        """Refuse a node, with its place and the nearest of the allowed names."""
        mark = node.start_mark
        hint = None
        if wrong is not None:
            near = difflib.get_close_matches(wrong, [str(name) for name in allowed], n=1)
            listed = ", ".join(sorted(str(name) for name in allowed))
            hint = f"did you mean '{near[0]}'?" if near else f"one of: {listed}"
        raise ScenarioError(f"{self._file}:{mark.line + 1}:{mark.column + 1}: {message}", hint=hint)


def _names(kind: type[msgspec.Struct]) -> Collection[str]:
    """Return the names of a class's fields."""
    return kind.__struct_fields__

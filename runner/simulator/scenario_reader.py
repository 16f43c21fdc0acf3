"""Read scenario files, and report what is wrong with them and where."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from yaml.error import YAMLError
from yaml.events import StreamEndEvent

from runner.core.model import Json
from runner.core.problem import Finding, Position, Problem, Severity
from runner.core.units import format_count
from runner.disk import open_regular
from runner.errors import ScenarioError
from runner.manifest.document import Entry
from runner.manifest.yaml_parser import YamlUnreadable, parse_problem, to_position
from runner.manifest.yaml_values import ValueBuilder, open_events
from runner.schema.catalog import load_catalog
from runner.schema.request_schema import ValueSchema
from runner.simulator.faults import RequestKind
from runner.simulator.scenario import Scenario

_SHIPPED = Path(__file__).parent / "scenarios"


def shipped_scenarios() -> list[str]:
    """Return the names of the scenarios that are part of the program."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def load_scenario(path_or_name: str | Path) -> Scenario:
    """
    Read a scenario: a file, or a shipped one by its name.

    Raises:
        ScenarioError: There is no such file, or it is not a scenario; it lists all problems with their places.
    """
    name, shipped = str(path_or_name), shipped_scenarios()
    path = _SHIPPED / f"{name}.yaml" if name in shipped else Path(path_or_name)
    problems: list[Problem] = []
    try:
        entry = _read(path, problems)
        known = {problem.position for problem in problems}
        found = entry.problems(_findings(entry.value))
        problems += [problem for problem in found if problem.position not in known]
    except OSError as error:
        raise ScenarioError(
            f"the scenario {name} can't be read: {error.strerror or error}",
            hint=f"give a file, or one of: {', '.join(shipped)}",
        ) from None
    except YAMLError as error:
        problems.append(parse_problem(error, path, str(path)))
    except YamlUnreadable as error:
        place = to_position(error.event.start_mark, str(path)) if error.event else Position(str(path))
        problems.append(Problem(Severity.ERROR, place, error.message))
    if problems:
        count = format_count(len(problems), "problem")
        raise ScenarioError(f"{count} in the scenario {name}", problems=problems)
    return _scenario(entry.value, path.stem)


def _read(path: Path, problems: list[Problem]) -> Entry:
    """Read a file as one value with positions, and append to `problems` what is no JSON value."""

    def on_error(event: Any, message: str, hint: str | None) -> None:
        if hint and "gateway.api_keys" in hint:
            # That is where the keys of a manifest belong.
            message, hint = "this looks like a real API key", "make up a shorter one, such as sk-sim-one"
        place = to_position(event.start_mark, str(path))
        problems.append(Problem(Severity.ERROR, place, message, hint=hint))

    with open_regular(path) as stream:
        next_event = open_events(stream)
        builder = ValueBuilder(next_event, on_error)
        next_event()
        if isinstance(next_event(), StreamEndEvent):
            raise YamlUnreadable("the file is empty; start it with version: 1")
        value = builder.build(next_event())
        next_event()
        if not isinstance(event := next_event(), StreamEndEvent):
            raise YamlUnreadable("a second document starts here; a scenario is one document", event)
    return Entry(value, -1, to_position(builder.events[0].start_mark, str(path)), builder.events)


def _findings(value: Json) -> list[Finding]:
    """Return what is wrong with a scenario."""
    findings = ValueSchema(load_catalog().document("scenario"), "the scenario").findings(value)
    return findings or list(_job_label_findings(value.get("job_label")))


def _job_label_findings(pattern: str | None) -> Iterator[Finding]:
    """Yield what is wrong with a regular expression that needs a group."""
    try:
        if pattern is not None and not re.compile(pattern).groups:
            yield Finding(("job_label",), "job_label: the pattern needs a group", "for example 'job (\\S+)'")
    except re.error as error:
        yield Finding(("job_label",), f"job_label: not a regular expression: {error}")


def _scenario(value: Mapping[str, Json], name: str) -> Scenario:
    """Return a valid file as a scenario."""
    scenario = {"name": name, **value, "rules": [_rule(rule) for rule in value.get("rules", ())]}
    scenario["outages"] = [_outage(outage) for outage in value.get("outages", ())]
    _replace(scenario, "generate_s", _range)
    _replace(scenario, "keys", _list)
    # Not strict, since 2.0 is an integer to JSON Schema.
    return msgspec.convert(scenario, Scenario, strict=False)


def _rule(value: Mapping[str, Json]) -> dict[str, Json]:
    match, task = dict(value.get("match", {})), dict(value.get("task", {}))
    _replace(match, "nth", _list)
    _replace(match, "seeds", _list)
    _replace(task, "generate_s", _range)
    faults = {kind: [_fault(fault) for fault in _list(value[kind])] for kind in RequestKind if kind in value}
    return {**value, "match": match, "task": task, "faults": faults}


def _outage(value: Mapping[str, Json]) -> dict[str, Json]:
    return {**value, "answer": {**_fault(value.get("answer", "bad_gateway")), "times": None}}


def _fault(value: Json) -> dict[str, Json]:
    options = {} if isinstance(value, str) else dict(value)
    name, times = options.pop("fault", value), options.pop("times", 1)
    return {"name": name, "times": None if times == "always" else times, "options": options}


def _replace(value: dict[str, Json], key: str, convert: Any) -> None:
    if key in value:
        value[key] = convert(value[key])


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else [value]


def _range(value: Json) -> list[Json]:
    return value if isinstance(value, list) else [value, value]

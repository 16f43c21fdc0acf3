"""Scenario files: how they are read, what is wrong with invalid ones, and which jobs a rule applies to."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import runner.simulator
from runner.errors import ScenarioError
from runner.schema.catalog import load_catalog
from runner.simulator.faults import FAULTS, Fault, RequestKind
from runner.simulator.scenario import (
    DurationRange,
    JobInfo,
    Match,
    Outage,
    RateLimit,
    Rule,
    Scenario,
    Shape,
    TaskBehavior,
    TaskEnd,
)
from runner.simulator.scenario_reader import load_scenario, shipped_scenarios
from runner.simulator.task_shapes import Phase

SCHEMA: dict[str, Any] = load_catalog().document("scenario")
PAGE = Path(runner.simulator.__file__).with_name("README.md")


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Scenario]:
    """Return a function that reads a scenario from its text, as the file s.yaml."""
    monkeypatch.chdir(tmp_path)

    def read(text: str) -> Scenario:
        Path("s.yaml").write_text(text, encoding="utf-8")
        return load_scenario("s.yaml")

    return read


def job(number: int = 1, **values: str) -> JobInfo:
    seed = values.pop("seed", None)
    fields = {"digest": str(number), "model": "wan2.7-i2v", "prompt": "A kitten", "key": "sk-a", **values}
    return JobInfo(number=number, seed=seed, **fields)


def test_the_documented_example_is_read_as_its_comments_say(read: Callable[[str], Scenario]) -> None:
    """The example on the page about scenarios is valid, and every part of it has an effect."""
    example = re.search(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert example

    scenario = read(example[1])

    assert 7 == scenario.seed
    assert DurationRange(0.3, 1.5) == scenario.generate_s
    assert ("sk-sim-one",) == scenario.keys
    assert (Outage(from_s=2, to_s=3.5),) == scenario.outages
    assert "dawn-07" == scenario.label("job dawn-07 a kitten")
    rule = scenario.rules[0]
    assert (Shape.ARK, TaskEnd.MODERATION) == (rule.task.shape, rule.task.end)
    assert (Fault("throttled", 2), Fault("reset")) == rule.faults[RequestKind.SUBMIT]
    assert (Fault("bad_gateway", None),) == rule.faults[RequestKind.POLL]
    assert 0.3 == rule.faults[RequestKind.ASSET][0].option("at")


@pytest.mark.parametrize("name", shipped_scenarios())
def test_shipped_scenarios_can_be_read(name: str) -> None:
    """Each is found by its name alone, and has that name."""
    assert name == load_scenario(name).name


def test_the_mixed_scenario_is_complete() -> None:
    """It has every fault except those that stop a whole run, and each rule has its own job numbers."""
    rules = load_scenario("mixed").rules
    used = {fault.name for rule in rules for faults in rule.faults.values() for fault in faults}

    assert {"quota", "quota_403", "payment_required", "unauthorized", "token_invalid"} == FAULTS.keys() - used
    assert len(rules) == len({rule.match.nth for rule in rules}) == len({rule.name for rule in rules})
    assert set(TaskEnd) == {rule.task.end for rule in rules}
    assert {*Shape, None} == {rule.task.shape for rule in rules}


@pytest.mark.parametrize("kind", RequestKind)
def test_the_schema_lists_the_faults_and_their_options(kind: RequestKind) -> None:
    """For each kind of request the schema allows the faults of the table, with the options of the table."""
    reference = SCHEMA["$defs"]["rule"]["properties"][kind]["$ref"].rpartition("/")[2].removesuffix("_faults")
    mapping = SCHEMA["$defs"][f"{reference}_fault"]["properties"]
    faults = {name: fault for name, fault in FAULTS.items() if kind in fault.request_kinds}

    assert list(faults) == SCHEMA["$defs"][f"{reference}_fault_name"]["enum"]
    options = {option for fault in faults.values() for option in fault.options}
    if kind is not RequestKind.SUBMIT:
        options -= {"created"}
    assert {"fault", "times", *options} == mapping.keys()


def test_the_schema_allows_each_option_for_its_faults_only() -> None:
    """An option is refused for a fault that has none of this name in the table."""
    allowed = {
        option: rule["properties"]["fault"]["enum"]
        for option, rule in SCHEMA["$defs"]["options_of_faults"]["dependentSchemas"].items()
    }
    options = {option for fault in FAULTS.values() for option in fault.options} - {"created"}

    assert allowed == {
        option: [name for name, fault in FAULTS.items() if option in fault.options] for option in allowed
    }
    assert options == allowed.keys()


def test_the_schema_describes_every_key_with_an_example() -> None:
    """Its keys are those of the classes, and each has a description and valid examples."""
    definitions = SCHEMA["$defs"]
    sections = [
        ({"version", *Scenario.__struct_fields__}, SCHEMA["properties"]),
        ({*RequestKind, *Rule.__struct_fields__} - {"faults"}, definitions["rule"]["properties"]),
        ({*Match.__struct_fields__}, definitions["match"]["properties"]),
        ({*TaskBehavior.__struct_fields__}, definitions["task"]["properties"]),
        ({*Outage.__struct_fields__}, definitions["outage"]["properties"]),
        ({*RateLimit.__struct_fields__}, SCHEMA["properties"]["rate_limit"]["properties"]),
    ]

    for fields, properties in sections:
        assert fields == properties.keys()
        for name, rules in properties.items():
            assert rules["description"], name
            for example in rules.get("examples", ()):
                resolved = {**rules, "$schema": SCHEMA["$schema"], "$defs": definitions}
                assert [] == list(Draft202012Validator(resolved).iter_errors(example)), name
    words = {phase.value for phase in Phase} - {"unknown"}
    assert words == set(definitions["task"]["properties"]["words"]["propertyNames"]["enum"])


@pytest.mark.parametrize("field", ["shape", "end", "error_in", "ids", "url"])
def test_the_schema_lists_every_word(field: str) -> None:
    """Where one of a few words is expected, they are those of the class."""
    annotation = TaskBehavior.__annotations__[field].removesuffix(" | None")
    words = getattr(runner.simulator.scenario, annotation)

    assert {word.value for word in words} == set(SCHEMA["$defs"]["task"]["properties"][field]["enum"])


INVALID = {
    "": "s.yaml: the file is empty; start it with version: 1",
    "rules: []": "s.yaml:1:1: missing key 'version' in the scenario; write version: 1",
    "version: 2": "s.yaml:1:10: version: 2 is not a version that this program reads; write version: 1",
    "version: [1": "s.yaml:2:1: not readable as YAML: ",
    "- version: 1": "s.yaml:1:1: the scenario: a list is not a mapping",
    "version: 1\n---\nversion: 1": "s.yaml:2:1: a second document starts here",
    "version: 1\n1: 2": "s.yaml:2:1: the key 1 is not text; write '1' in quotes",
    "version: 1\nrule: []": "s.yaml:2:1: unknown key 'rule' in the scenario; did you mean 'rules'?",
    "version: 1\nseed: 1\nseed: 2": "s.yaml:3:1: duplicate key 'seed'",
    "version: 1\nseed: one": "s.yaml:2:7: seed: 'one' is text, not a whole number",
    "version: 1\nname: \a": "s.yaml:2:7: the character U+0007 is not allowed in YAML",
    "version: 1\nkeys: [sk-0123456789abcdef0123]": "s.yaml:2:8: this looks like a real API key; make up a shorter one",
    "version: 1\ngenerate_s: [1]": "s.yaml:2:13: generate_s: 1 item",
    "version: 1\ngenerate_s: .nan": "s.yaml:2:13: .nan is a number that JSON does not have",
    "version: 1\nurl_valid_s: nan": "s.yaml:2:14: url_valid_s: 'nan' is text, not a number",
    "version: 1\njob_label: '('": "s.yaml:2:12: job_label: not a regular expression: ",
    "version: 1\njob_label: job": "s.yaml:2:12: job_label: the pattern needs a group; for example 'job (\\S+)'",
    "version: 1\nseed: 99999999999999999999\njob_label: job": "s.yaml:3:12: job_label: the pattern needs a group",
    "version: 1\nrate_limit: {submit_per_s: 0}": (
        "s.yaml:2:28: rate_limit.submit_per_s: 0 is not allowed (more than 0)"
    ),
    "version: 1\noutages: [{from_s: 1}]": "s.yaml:2:11: missing key 'to_s' in outages[0]",
    "version: 1\nrules: {submit: reset}": "s.yaml:2:8: rules: a mapping is not a list",
    "version: 1\nrules:\n- sumbit: reset": (
        "s.yaml:3:3: unknown key 'sumbit' in rules[0]; did you mean 'submit'?"
    ),
    "version: 1\nrules:\n- submit: throtled": (
        "s.yaml:3:11: rules[0].submit: 'throtled' is not allowed; did you mean 'throttled'?"
    ),
    "version: 1\nrules:\n- submit: [reset, {fault: throtled}]": (
        "s.yaml:3:27: rules[0].submit[1].fault: 'throtled' is not allowed; did you mean 'throttled'?"
    ),
    "version: 1\nrules:\n- poll: truncated": (
        "s.yaml:3:9: rules[0].poll: 'truncated' is not allowed (bad_request, "
    ),
    "version: 1\nrules:\n- poll: 5": "s.yaml:3:9: rules[0].poll: 5 is a number, not text, a mapping or a list",
    "version: 1\nrules:\n- submit: {fault: hang, for: 3}": (
        "s.yaml:3:25: unknown key 'for' in rules[0].submit; did you mean 'for_s'?"
    ),
    "version: 1\nrules:\n- submit: {fault: reset, for_s: 3}": (
        "s.yaml:3:19: rules[0].submit.fault: 'reset' has no option 'for_s', which is for hang and stall"
    ),
    "version: 1\nrules:\n- poll: {fault: reset, created: true}": (
        "s.yaml:3:24: unknown key 'created' in rules[0].poll"
    ),
    "version: 1\nrules:\n- asset: {fault: truncated, at: 60}": (
        "s.yaml:3:33: rules[0].asset.at: 60 is not allowed (0 to 1)"
    ),
    "version: 1\nrules:\n- submit: {times: 3}": "s.yaml:3:11: missing key 'fault' in rules[0].submit",
    "version: 1\nrules:\n- submit: {fault: reset, times: 0}": (
        "s.yaml:3:33: rules[0].submit.times: 0 is not allowed (1 or more)"
    ),
    "version: 1\nrules:\n- submit: {fault: reset, created: yes}": (
        "s.yaml:3:35: rules[0].submit.created: 'yes' is text, not true or false"
    ),
    "version: 1\nrules:\n- match: {nth: 0}": "s.yaml:3:16: rules[0].match.nth: 0 is not allowed (1 or more)",
    "version: 1\nrules:\n- match: {model: [a]}": "s.yaml:3:18: rules[0].match.model: a list is not text",
    "version: 1\nrules:\n- task: {end: fail}": (
        "s.yaml:3:15: rules[0].task.end: 'fail' is not allowed (succeeded, failed, moderation, cancelled, expired,"
        " never, lost); did you mean 'failed'?"
    ),
    "version: 1\nrules:\n- task: {words: {done: x}}": (
        "s.yaml:3:24: rules[0].task.words: the key 'done' is not allowed (queued, running, "
    ),
}


@pytest.mark.parametrize(("text", "problem"), INVALID.items())
def test_an_invalid_scenario_is_refused(text: str, problem: str, read: Callable[[str], Scenario]) -> None:
    """The only problem has file, line and column, and a hint if there is one."""
    with pytest.raises(ScenarioError, match="^1 problem in the scenario s.yaml\n") as caught:
        read(text)

    assert str(caught.value.problems[0]).startswith(problem)


def test_all_problems_are_listed(read: Callable[[str], Scenario]) -> None:
    """One attempt shows everything that is wrong."""
    with pytest.raises(ScenarioError, match="^3 problems in the scenario s.yaml\n") as caught:
        read("version: 1\nrule: []\nrules:\n- submit: rset\n- poll: {times: 2}")

    assert [2, 4, 5] == [problem.position.line for problem in caught.value.problems]


def test_a_missing_scenario_is_refused(tmp_path: Path) -> None:
    """The hint lists the shipped ones."""
    with pytest.raises(ScenarioError, match="can't be read: No such file") as caught:
        load_scenario(tmp_path / "none.yaml")

    assert "demo, mixed" in (caught.value.hint or "")


def test_a_scenario_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """A file that is not UTF-8 gets a message with the byte, not a traceback."""
    (tmp_path / "s.yaml").write_bytes(b"version: 1\nname: \xff")

    with pytest.raises(ScenarioError) as caught:
        load_scenario(tmp_path / "s.yaml")

    assert "s.yaml:2:7: not UTF-8: byte 0xFF" in str(caught.value.problems[0])


def test_a_number_may_be_written_with_a_fraction_of_zero(read: Callable[[str], Scenario]) -> None:
    """What is a whole number to JSON Schema is one here."""
    assert 2 == read("version: 1\nseed: 2.0").seed


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        (Match(), [1, 2, 3, 4, 5, 6]),
        (Match(nth=(2, 3)), [2, 3]),
        (Match(every=3), [3, 6]),
        (Match(every=3, nth=(1,)), [1, 4]),
        (Match(after=4), [5, 6]),
        (Match(after=3, every=2), [4, 6]),
        (Match(model="wan*"), [1, 2, 3, 4, 5, 6]),
        (Match(model="wan"), []),
        (Match(prompt="kit"), [1, 2, 3, 4, 5, 6]),
        (Match(prompt="kit*"), []),
        (Match(key="sk-b*"), []),
        (Match(seeds=(1,)), []),
        (Match(probability=0.0), []),
        (Match(probability=1.0), [1, 2, 3, 4, 5, 6]),
    ],
)
def test_all_conditions_of_a_match_must_hold(match: Match, expected: list[int]) -> None:
    """Each condition alone, and numbers within groups."""
    assert expected == [number for number in range(1, 7) if match.matches(job(number), 0.5)]


def test_the_first_rule_that_matches_applies(read: Callable[[str], Scenario]) -> None:
    """A job that no rule matches gets no faults."""
    scenario = read("version: 1\nrules:\n- match: {prompt: kitten}\n- match: {prompt: k}\n- match: {nth: 9}")

    assert [0, 1, None] == [scenario.rule_number(job(prompt=text)) for text in ("kitten", "k", "dog")]


def test_random_choices_are_the_same_every_time(read: Callable[[str], Scenario]) -> None:
    """A probability chooses its share of the jobs, depending on the seed and the request only."""
    text = "version: 1\nseed: {}\nrules:\n- match: {{probability: 0.3}}"
    first, again, other = (read(text.format(seed)) for seed in (1, 1, 2))
    jobs = [job(number) for number in range(1000)]

    chosen = [first.rule_number(one) for one in jobs]

    assert 250 < chosen.count(0) < 350
    assert chosen == [again.rule_number(one) for one in jobs]
    assert chosen != [other.rule_number(one) for one in jobs]

"""Scenario files: what they say, and what is said of a wrong one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runner.errors import ScenarioError
from runner.simulator import scenario as scenario_module
from runner.simulator.faults import FAULTS, Fault, Place
from runner.simulator.scenario import JobInfo, Match, Scenario, Shape, Span, TaskEnd
from runner.simulator.scenario_reader import load_scenario, parse_scenario, shipped_scenarios


def read(text: str) -> Scenario:
    return parse_scenario(text, file="s.yaml")


def job(number: int = 1, **values: str) -> JobInfo:
    seed = values.pop("seed", None)
    fields = {"digest": str(number), "model": "wan2.7-i2v", "prompt": "A kitten", "key": "sk-a", **values}
    return JobInfo(number=number, seed=seed, **fields)


def test_the_documented_example_is_a_scenario() -> None:
    """The example that explains scenarios can be read, and says what its comments say."""
    example = re.search(r"```yaml\n(.*?)```", scenario_module.__doc__ or "", re.DOTALL)
    assert example

    made = read(example[1])

    assert made.seed == 7
    assert Span(0.3, 1.5) == made.generate_s
    assert made.keys == ("sk-sim-one",)
    rule = made.rules[0]
    assert (rule.task.shape, rule.task.end) == (Shape.ARK, TaskEnd.MODERATION)
    assert (Fault("throttled", 2), Fault("reset")) == rule.faults[Place.SUBMIT]
    assert (Fault("bad_gateway", None),) == rule.faults[Place.POLL]
    assert rule.faults[Place.ASSET][0].option("at") == 0.3


@pytest.mark.parametrize("name", shipped_scenarios())
def test_shipped_scenarios_can_be_read(name: str) -> None:
    """Each is found by its name alone, and says its own name."""
    assert name == load_scenario(name).name


def test_the_mixed_scenario_leaves_nothing_out() -> None:
    """It plays every fault but those that stop a whole run, each rule at places of its own."""
    rules = load_scenario("mixed").rules
    played = {fault.name for rule in rules for faults in rule.faults.values() for fault in faults}

    assert {
        "quota",
        "quota_403",
        "payment_required",
        "unauthorized",
        "token_invalid",
    } == FAULTS.keys() - played
    assert len(rules) == len({rule.match.nth for rule in rules}) == len({rule.name for rule in rules})
    assert set(TaskEnd) == {rule.task.end for rule in rules}
    assert {*Shape, None} == {rule.task.shape for rule in rules}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "s.yaml: the file is empty", "version: 1"),
        ("rules: []", "s.yaml:1:1: a scenario starts with version: 1", None),
        ("version: 2", "s.yaml:1:1: a scenario starts with version: 1", None),
        ("version: [1", "s.yaml:", None),
        ("- version: 1", "s.yaml:1:1: a scenario must be a mapping", None),
        ("version: 1\nrule: []", "s.yaml:2:1: unknown key 'rule' in a scenario", "did you mean 'rules'?"),
        ("version: 1\nseed: 1\nseed: 2", "s.yaml:3:1: 'seed' stands twice in a scenario", None),
        ("version: 1\nseed: one", "s.yaml:2:7: expected a whole number, not 'one'", None),
        (
            "version: 1\ngenerate_s: [2, 1]",
            "s.yaml:2:13: expected a number of seconds, or [least, most]",
            None,
        ),
        ("version: 1\ngenerate_s: .nan", "s.yaml:2:13: expected a number, not '.nan'", None),
        ("version: 1\nurl_valid_s: nan", "s.yaml:2:14: 'nan' is out of range", None),
        ("version: 1\njob_label: '('", "s.yaml:2:12: not a pattern", None),
        ("version: 1\njob_label: job", "s.yaml:2:12: the pattern needs a group", None),
        ("version: 1\nrate_limit: {submit_per_s: 0}", "s.yaml:2:28: '0' is out of range", None),
        ("version: 1\noutages: [{from_s: 1}]", "s.yaml:2:11: an outage needs from_s and to_s", None),
        (
            "version: 1\nrules:\n- sumbit: reset",
            "s.yaml:3:3: unknown key 'sumbit' in a rule",
            "did you mean 'submit'?",
        ),
        (
            "version: 1\nrules:\n- submit: throtled",
            "s.yaml:3:11: unknown fault 'throtled' of submit",
            "did you mean 'throttled'?",
        ),
        (
            "version: 1\nrules:\n- poll: truncated",
            "s.yaml:3:9: unknown fault 'truncated' of poll",
            "one of: ",
        ),
        (
            "version: 1\nrules:\n- submit: {fault: hang, for: 3}",
            "s.yaml:3:25: unknown key 'for' in the fault hang",
            "did you mean 'for_s'?",
        ),
        (
            "version: 1\nrules:\n- poll: {fault: reset, created: true}",
            "s.yaml:3:24: unknown key 'created' in the fault reset",
            None,
        ),
        (
            "version: 1\nrules:\n- asset: {fault: cut, at: 60}",
            "s.yaml:3:27: a file can break off at a share of it from 0 to 1",
            None,
        ),
        ("version: 1\nrules:\n- submit: {times: 3}", "s.yaml:3:11: a fault needs its name", None),
        ("version: 1\nrules:\n- submit: {fault: reset, times: 0}", "s.yaml:3:33: '0' is less than 1", None),
        (
            "version: 1\nrules:\n- submit: {fault: reset, created: yes}",
            "s.yaml:3:35: expected true or false, not 'yes'",
            None,
        ),
        (
            "version: 1\nrules:\n- task: {end: fail}",
            "s.yaml:3:15: unknown value 'fail'",
            "did you mean 'failed'?",
        ),
        (
            "version: 1\nrules:\n- task: {words: {done: x}}",
            "s.yaml:3:18: unknown key 'done' in words",
            "one of: cancelled, expired, failed, queued, running, succeeded",
        ),
        ("version: 1\nrules:\n- match: {model: [a]}", "s.yaml:3:18: expected text", None),
    ],
)
def test_a_wrong_scenario_is_refused_with_its_place(text: str, message: str, hint: str | None) -> None:
    """The message names file, line and column; the hint the nearest name that would be right."""
    with pytest.raises(ScenarioError) as caught:
        read(text)

    assert caught.value.message.startswith(message)
    if hint:
        assert hint in (caught.value.hint or "")


def test_a_scenario_that_is_absent_is_refused(tmp_path: Path) -> None:
    """The hint names the shipped ones."""
    with pytest.raises(ScenarioError, match="can't be read: No such file") as caught:
        load_scenario(tmp_path / "none.yaml")

    assert "demo, mixed" in (caught.value.hint or "")


def test_a_scenario_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """A file that is not UTF-8 gets a message, not a traceback."""
    (tmp_path / "s.yaml").write_bytes(b"\xff\xfe")

    with pytest.raises(ScenarioError, match="not UTF-8"):
        load_scenario(tmp_path / "s.yaml")


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
    assert expected == [number for number in range(1, 7) if match.holds(job(number), 0.5)]


def test_the_first_rule_that_matches_decides() -> None:
    """And a job that none matches meets no fault."""
    made = read("version: 1\nrules:\n- match: {prompt: kitten}\n- match: {prompt: k}\n- match: {nth: 9}")

    assert [made.rule_for(job(prompt=text)) for text in ("kitten", "k", "dog")] == [0, 1, None]


def test_chance_plays_the_same_piece_every_time() -> None:
    """A probability chooses its share of jobs, by the seed and the request alone."""
    text = "version: 1\nseed: {}\nrules:\n- match: {{probability: 0.3}}"
    first, again, other = (read(text.format(seed)) for seed in (1, 1, 2))
    jobs = [job(number) for number in range(1000)]

    chosen = [first.rule_for(one) for one in jobs]

    assert 250 < chosen.count(0) < 350
    assert chosen == [again.rule_for(one) for one in jobs]
    assert chosen != [other.rule_for(one) for one in jobs]

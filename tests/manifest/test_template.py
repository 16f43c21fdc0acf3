"""Placeholders: their values, what is not a placeholder, and errors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.model import Json
from runner.manifest.header import is_literal
from runner.manifest.template import Scope, compile_template

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10
)


def _without_nulls(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${seed}", 7),
        ("seed ${seed}", "seed 7"),
        ("${ seed }", 7),
        ("${flag}", True),
        ("is ${flag}", "is true"),
        ("${nothing}!", "!"),
        ("${list}", [1, {"a": "b"}]),
        ("in ${list}", 'in [1, {"a": "b"}]'),
        ("$5 and $$", "$5 and $$"),
        ("$${seed}", "${seed}"),
        ("$$${seed}", "$${seed}"),
        ("${seed}${seed}", "77"),
        ("${date}", "2026-11-21"),
        ("${prompt}", "a ${seed} that was a value"),
        ("${小猫}", "Chinese"),
        ("${shot size}", "close"),
        ("${style.look.name}", "film"),
        ("${list.1.a} and ${list.0}", "b and 1"),
        ("${a.b}", "with a dot"),
        ("${style.grain:-none}", "none"),
        ("${nothing.at.all}!", "!"),
        ("${seed:-8}", 7),
        ("${empty:-full}", "full"),
        ("${nothing:- 1:2 }", "1:2"),
        ("${absent_here:-x} ${absent_here:-}", "x "),
    ],
)
@pytest.mark.parametrize("is_constant", [True, False])
def test_filling(text: str, expected: Json, is_constant: bool) -> None:
    """A value is filled in once, with its type if it is the whole text, as a constant and for each job."""
    values = {
        "seed": 7,
        "flag": True,
        "nothing": None,
        "list": [1, {"a": "b"}],
        "date": "2026-11-21",
        "prompt": "a ${seed} that was a value",
        "小猫": "Chinese",
        "shot size": "close",
        "style": {"look": {"name": "film"}},
        "a.b": "with a dot",
        "a": {"b": "hidden"},
        "empty": "",
    }
    scope = Scope(constants=values) if is_constant else Scope(varying=frozenset(values))

    template = compile_template([text], scope)

    assert template.findings == ()
    assert [expected] == template.render(values)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("${sed}", "unknown placeholder '${sed}'", "did you mean 'seed'? The names are date, seed"),
        ("${sed:-7}", "unknown placeholder '${sed}', which has its default everywhere", "did you mean 'seed'? The names are date, seed"),
        ("${date.x}", "unknown placeholder '${date.x}'", "did you mean 'date'? The names are date, seed"),
        ("${}", "unknown placeholder '${}'", "the names are date, seed"),
        (
            "a ${seed",
            "placeholder '${seed' is not closed",
            "close it with '}', or write '$${' for a literal '${'",
        ),
    ],
)  # fmt: skip
def test_unknown_placeholders(text: str, message: str, hint: str) -> None:
    """An unknown placeholder is reported with the known names."""
    findings = compile_template({"a": [text]}, Scope({"date": "x"}, frozenset({"seed"}))).findings

    assert [(("a", 0), message, hint)] == [(one.path, one.message, one.hint) for one in findings]


@given(VALUES)
def test_round_trip(value: Json) -> None:
    """A value with its placeholders escaped is rendered as it was, except for nulls in mappings."""

    def escaped(value: Json) -> Json:
        if isinstance(value, str):
            return value.replace("${", "$${")
        if isinstance(value, dict):
            return {key: escaped(item) for key, item in value.items()}
        return [escaped(item) for item in value] if isinstance(value, list) else value

    template = compile_template([escaped(value)], Scope())

    assert template.findings == ()
    assert [_without_nulls(value)] == template.render({})


@given(VALUES)
def test_literal_values_render_unchanged(value: Json) -> None:
    """A value without placeholders is the same after rendering, which is therefore skipped."""
    if is_literal([value]):
        assert [value] == compile_template([value], Scope()).render({})


@pytest.mark.slow
@given(st.lists(VALUES, min_size=2, max_size=2))
def test_jobs_do_not_share_what_varies(values: list[Json]) -> None:
    """A job keeps its values when the next one is rendered."""
    template = compile_template({"a": {"b": "${x}"}, "c": ["${x}"], "d": {"e": 1}}, Scope(varying={"x"}))

    jobs = [template.render({"x": value}) for value in values]

    def expected(value: Json) -> Json:
        return {
            "a": {} if value is None else {"b": value},
            "c": [] if value is None else [value],
            "d": {"e": 1},
        }

    assert [expected(value) for value in values] == jobs


def test_null_removes_a_key() -> None:
    """A key whose value is null is absent, not sent as null; the others keep their order."""
    template = compile_template({"a": "${x}", "b": 1, "c": "${y}"}, Scope(varying={"x", "y"}))

    assert {"b": 1, "c": 2} == template.render({"x": None, "y": 2})
    assert ["a", "b", "c"] == list(template.render({"x": 0, "y": 2}))

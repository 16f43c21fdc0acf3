"""The schemas of the families follow the vendor's pages, and every example of a page is a valid request."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator

from runner.core.problem import Severity
from runner.schema import catalog
from runner.schema.derive import Page
from runner.schema.request_schema import RequestSchema
from tests.schema.families import (
    FAMILIES,
    SCHEMAS,
    build,
    read_pages,
    smallest_request,
    stored_pages,
    text_of,
)

CATALOG = catalog.load_catalog()
PAGES = [(family, page) for family in FAMILIES for page in stored_pages(family)]
WITHOUT_EXAMPLES = {
    "byteplus/seedance-1-0-pro-fast-text-to-video",
    "byteplus/seedance-1-0-pro-fast-image-to-video",
}
EXPECTED_WARNINGS = ("a public URL: the page of the model allows it", "has no effect with a first_frame")
VENDOR_PAGES = [
    folder for parent in SCHEMAS.parents if (folder := parent / "shared" / "api" / "openapi").is_dir()
]


@pytest.mark.parametrize("family", FAMILIES)
def test_file_is_base_and_overlay(family: str) -> None:
    """What the pages say, under the overlay, is the file in schemas/, to the letter."""
    path = SCHEMAS / f"{family}.schema.json"

    assert f"{text_of(build(family))}\n" == path.read_text(encoding="utf-8")


@pytest.mark.skipif(not VENDOR_PAGES, reason="the vendor's pages are not here")
def test_stored_pages_are_the_vendors() -> None:
    """What is stored of the pages is what is read from them; the page of Wan 3.0 is not among the files."""
    read = read_pages(VENDOR_PAGES[0])

    assert {family: stored_pages(family) for family in FAMILIES if family != "wan3.0"} == {
        family: pages for family, pages in read.items() if family != "wan3.0"
    }


def test_all_models_have_a_schema() -> None:
    """Each of the 17 models of the 38 pages is served."""
    models = {model for _, page in PAGES for model in page.models}

    assert 38 == len(PAGES)
    assert 17 == len(models)
    assert models < set(CATALOG.models)
    assert WITHOUT_EXAMPLES == {page.page for _, page in PAGES if not page.examples}


@pytest.mark.parametrize(("family", "page"), PAGES, ids=lambda value: getattr(value, "page", value))
def test_examples_of_a_page_are_valid(family: str, page: Page) -> None:
    """Every example of a page has no error; warnings are of what the prose of its page or the guide says."""
    for request in page.examples or (smallest_request(page),):
        schema = CATALOG.select(request)

        assert isinstance(schema, RequestSchema)
        assert family == schema.name
        assert schema.normalize(request) is request
        findings = schema.findings(request)
        assert [] == [
            found.message
            for found in findings
            if not any(expected in found.message for expected in EXPECTED_WARNINGS)
        ]
        assert schema.is_clean(request) == (not findings)


def _values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Draw what a page allows for a field, and a little of what it does not."""
    right: st.SearchStrategy[Any]
    match schema:
        case {"enum": [*values]}:
            right = st.sampled_from(values)
        case {"type": "boolean"}:
            right = st.booleans()
        case {"type": "integer"}:
            right = st.integers(schema.get("minimum", -5), schema.get("maximum", 2**33))
        case {"type": "array", "items": items}:
            least = schema.get("minItems", 0)
            right = st.lists(_values(items), min_size=least, max_size=schema.get("maxItems", 4))
        case {"type": "object", "properties": properties}:
            drawn = {name: _values(child) for name, child in properties.items()}
            needed = {name: drawn.pop(name) for name in schema.get("required", ())}
            right = st.fixed_dictionaries(needed, optional=drawn)
        case _:
            right = st.sampled_from(["A kitten", "https://example.com/a.png", "asset://a", "x" * 2001])
    wrong = st.sampled_from(["", "99", "16:10", -1, True, []])
    return st.integers(0, 29).flatmap(lambda chance: right if chance else wrong)


@st.composite
def bodies(draw: st.DrawFn, family: str) -> tuple[Any, str]:
    """Draw a body from the page of one use, with the model of another at times; media has its text."""
    page = draw(st.sampled_from(stored_pages(family)))
    properties = page.request["properties"]
    body = draw(
        st.fixed_dictionaries(
            {name: _values(properties[name]) for name in page.request["required"]},
            optional={k: _values(v) for k, v in properties.items() if k not in page.request["required"]},
        )
    )
    if isinstance(body.get("media"), list):
        body["media"] = [_repaired(item) for item in body["media"]]
    if draw(st.integers(0, 19)) == 0:
        # No page forbids what it does not list.
        body[draw(st.sampled_from(("seed", "negative_prompt", "image", "images", "media", "watermrak")))] = (
            draw(st.sampled_from((1, "A kitten", ["https://example.com/a.png"])))
        )
    return body, page.page


def _repaired(item: Any) -> Any:
    """Give an item the keys of its type, which nearly no drawn item has."""
    if not isinstance(item, dict):
        return item
    is_text = item.get("type") == "text"
    text, url = {"text": "A kitten"}, {"url": "https://example.com/a.png"}
    return {key: value for key, value in item.items() if key not in ("text", "url")} | (
        text if is_text else url
    )


def _is_decided(body: Any) -> bool:
    """Return whether a page refuses a body that was decided to be allowed all the same."""
    model = body.get("model")
    is_long = body.get("seconds") in ("13", "14") and str(model).startswith("dreamina-seedance-2-0")
    # The April document has an optional prompt.
    is_april = str(model).startswith(("wan2.2-kf2v", "wan2.1-kf2v")) and "prompt" not in body
    types = [item.get("type") for item in body.get("media", ()) if isinstance(item, dict)]
    # The pages count text and frames; without the text they have fewer items than a page wants.
    is_without_text = "first_frame" in types and "text" not in types
    return is_long or is_april or is_without_text


def _reasons() -> dict[str, re.Pattern[str]]:
    """Return the messages in the table of reasons, each as a pattern of messages."""
    text = (SCHEMAS / "README.md").read_text(encoding="utf-8")
    table = text.partition("<!-- refusals -->")[2].partition("<!-- end of refusals -->")[0]
    rows = re.findall(r"^\| `(.+)` \| (.+) \|$", table, re.MULTILINE)
    assert all(fact in text for _, why in rows for fact in re.findall(r"F[0-9]+", why))
    return {row: re.compile(re.escape(row).replace("…", ".*"), re.DOTALL) for row, _ in rows}


REASONS = _reasons()


def test_every_reason_is_that_of_a_refusal() -> None:
    """No row of the table is left over from an older schema: each is the message of a mutation."""
    tables = (SCHEMAS.parent / "tests" / "schema" / "mutations").glob("*.yaml")
    cases = [case for path in tables for case in yaml.safe_load(path.read_text(encoding="utf-8"))]
    # The tables have a message and its hint in one text.
    messages = [
        part for case in cases for text in case.get("errors", ()) for part in (text, text.partition("; ")[0])
    ]

    assert [] == [row for row, pattern in REASONS.items() if not any(map(pattern.fullmatch, messages))]


def _check_bodies(family: str, count: int) -> None:
    schema = CATALOG.schema(family)
    validators = [(page, Draft202012Validator(page.request)) for page in stored_pages(family)]

    @settings(
        max_examples=count,
        suppress_health_check=list(HealthCheck),
        database=None,
        deadline=None,
        derandomize=True,
    )
    @given(bodies(family))
    def check(drawn: tuple[Any, str]) -> None:
        body, _ = drawn
        try:
            errors = [f for f in schema.findings(body) if f.severity is Severity.ERROR]
        except ValueError:
            return
        vendor = any(validator.is_valid(body) for page, validator in validators)
        if not errors and not _is_decided(body):
            assert vendor, json.dumps(body)
        if vendor:
            messages = [error.message for error in errors]
            unknown = [text for text in messages if not any(row.fullmatch(text) for row in REASONS.values())]
            assert [] == unknown, json.dumps(body)
        if not [f for f in schema.findings(body) if f.severity is Severity.WARNING] and not errors:
            assert schema.is_clean(body)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_drawn_bodies(family: str) -> None:
    """
    What is accepted here is accepted by one of the vendor's pages, but for what was decided otherwise; what is
    refused here, and accepted by a page, is refused for a documented reason.
    """
    _check_bodies(family, 100)


@pytest.mark.extended
@pytest.mark.parametrize("family", FAMILIES)
def test_many_drawn_bodies(family: str) -> None:
    """The same with many more bodies."""
    _check_bodies(family, 2000)

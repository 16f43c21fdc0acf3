"""Price tables as files have them, and what the pages of the models say for prices."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from runner.core.prices import Quote, table_json
from runner.schema.catalog import load_catalog
from runner.schema.price_tables import Pricer, read_price_table, shipped_prices

TODAY = date(2026, 11, 26)
PRICER = Pricer([shipped_prices()], load_catalog())


def table(*rows: dict[str, Any], **values: Any) -> dict[str, Any]:
    """Return a price table with these rows."""
    return {"version": 1, "checked": "2026-11-20", "currency": "USD", "prices": list(rows), **values}


def row(**values: Any) -> dict[str, Any]:
    """Return a row of a price table."""
    return {"model": "m", "unit": "second", "price": 0.05, **values}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (table(row(price=-0.01)), "not an amount"),
        (table(row(price=1e300)), "not an amount"),
        (table(row(price=float("nan"))), "not an amount"),
        (table(row(price="NaN")), "not an amount"),
        (table(row(price=True)), "prices[0].price"),
        (table(row(size={"720p": 1})), "a price, or prices by size"),
        (table({"model": "m", "unit": "second"}), "a price, or prices by size"),
        (table({"model": "m", "unit": "second", "size": {"720p": 1, "720P": 2}}), "letter case"),
        (table(row(unit="hour")), "'hour' is not allowed"),
        (table(row(until="2026-02-30")), "no day 2026-02-30"),
        (table(row(until="tomorrow")), "not a date"),
        (table(row(**{"from": "2026-10-02", "until": "2026-10-01"})), "before it begins"),
        (table(row(most_tokens=5)), "million_tokens"),
        (table(row(), row()), "overlaps"),
        (table(row(until="2026-10-07"), row(**{"from": "2026-10-07"})), "overlaps"),
        (table(row(when={"draft": True}), row(when={"draft": True})), "overlaps"),
        (table(row(), currency="dollars"), "three capital letters"),
        (table(row(), version=2), "version"),
        (table(), "prices"),
        ({}, "missing key"),
        (5, "price table"),
    ],
)
def test_what_is_wrong_with_a_table(value: Any, words: str) -> None:
    """A table with an error is not used, and the message says what is wrong."""
    read, findings = read_price_table(value, TODAY)

    assert read is None
    assert words in " ".join(f"{each.message}; {each.hint}" for each in findings)


@pytest.mark.parametrize(
    "rows",
    [
        [row(), row(until="2026-12-07")],
        [row(until="2026-12-07"), row(**{"from": "2026-12-08"})],
        [row(), row(when={"draft": True})],
        [row(), row(model="n")],
        [
            {"model": "m", "unit": "second", "size": {"720p": 1}},
            {"model": "m", "unit": "second", "size": {"1080p": 1}},
        ],
    ],
)
def test_rows_that_do_not_overlap(rows: list[dict[str, Any]]) -> None:
    """A promotion beside the list price, periods one after the other, other conditions, models and sizes are fine."""
    read, findings = read_price_table(table(*rows), TODAY)

    assert read is not None
    assert [] == findings


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (table(row(), checked="2026-08-27"), "91 days ago"),
        (table(row(), checked="2027-01-01"), "in the future"),
        (table(row(until="2026-11-25")), "ended on 2026-11-25"),
    ],
)
def test_warnings(value: Any, words: str) -> None:
    """An old table, one from the future, and a price that ended are warned of; the table is used."""
    read, findings = read_price_table(value, TODAY)

    assert read is not None
    assert words in " ".join(each.message for each in findings)


def test_amounts_are_the_digits_that_were_written() -> None:
    """No float is left: 0.1 is a tenth."""
    read, _ = read_price_table(table(row(price=0.1), row(model="n", price="0.10")), TODAY)

    assert read is not None
    assert [Decimal("0.1")] * 2 == [each.price for each in read.prices]


@pytest.mark.parametrize(
    ("request_", "highest"),
    [
        ({"model": "wan3.0-video"}, "1.00"),
        ({"model": "wan3.0-video", "size": "480p", "seconds": "-1"}, "1.50"),
        ({"model": "wan3.0-video-prime", "size": "720P", "seconds": "10", "generate_audio": False}, "1.40"),
        ({"model": "wan3.0-video", "size": "720P", "media": [{"type": "reference_video"}]}, "2.00"),
        ({"model": "dreamina-seedance-2-0-fast-260128"}, "0.605"),
        ({"model": "dreamina-seedance-2-5-260628", "seconds": "-1"}, "6.96"),
        ({"model": "dreamina-seedance-2-5-260628", "media": [{"type": "reference_video"}]}, None),
        ({"model": "wan2.7-i2v"}, None),
    ],
)
def test_shipped_table_with_the_pages_defaults(request_: dict[str, Any], highest: str | None) -> None:
    """What is public is priced by the defaults and the longest videos of the pages; the rest is unknown."""
    price = PRICER.quote(request_, TODAY)

    assert (None if highest is None else Decimal(highest)) == getattr(price, "highest", None)


@pytest.mark.parametrize(("day", "highest"), [(7, "0.20"), (8, "0.50")])
def test_shipped_promotion_ends(day: int, highest: str) -> None:
    """The promotion holds through its last day, and the list price from the next."""
    price = PRICER.quote({"model": "wan3.0-video", "size": "720P"}, date(2026, 10, day))

    assert isinstance(price, Quote)
    assert Decimal(highest) == price.highest


@pytest.mark.parametrize(
    ("model", "size"),
    [("seedance-1-5-pro-251215", "720p"), ("seedance-1-0-pro-250528", "1080p"), ("wan2.7-t2v", "1080p")],
)
def test_default_sizes(model: str, size: str) -> None:
    """An absent size is billed as the page's default, which differs between models of one page."""
    assert size == PRICER.price({"model": model}, TODAY)[0].size


def test_a_size_that_is_not_text_has_no_price() -> None:
    """An unchecked request may have anything for a size."""
    assert not isinstance(PRICER.quote({"model": "wan3.0-video", "size": ["720P"]}, TODAY), Quote)


def test_a_table_that_is_written_is_the_same_when_it_is_read() -> None:
    """The failed jobs of a run have its prices in their manifest, with every condition and period."""
    own, _ = read_price_table(
        table(
            row(when={"generate_audio": False}, note="silent"),
            row(**{"from": "2026-01-01", "until": "2026-12-31"}, model="n"),
            {"model": "t", "unit": "million_tokens", "size": {"720p": 4}, "most_tokens": 1000},
        ),
        None,
    )

    for each in (own, shipped_prices()):
        assert each is not None
        assert (each, []) == read_price_table(table_json(each), None)


def test_the_table_that_comes_with_the_program_is_valid() -> None:
    """It is read without its schema, which takes longer than all the rest."""
    text = (load_catalog().folder / "sources" / "prices.json").read_bytes()

    assert (shipped_prices(), []) == read_price_table(json.loads(text), None)


def test_the_first_table_with_a_model_decides() -> None:
    """The user's own table comes first, and decides on its models alone."""
    own, shipped = read_price_table(table(row()), TODAY)[0], shipped_prices()
    assert own is not None
    again = read_price_table(table(row(), row(model="n"), currency="CNY"), TODAY)[0]
    assert again is not None
    pricer = Pricer([own, again, shipped], load_catalog())

    assert (own, again, None) == tuple(map(pricer.tables_by_model.get, ("m", "n", "o")))


def test_a_price_that_is_remembered_is_that_of_the_same_form() -> None:
    """Requests of all models, with every single key and with all of them, cost what each costs alone."""
    catalog = load_catalog()
    prices = [{**row(), "model": model} for model in catalog.models]
    read, _ = read_price_table(table(*prices), TODAY)
    assert read is not None
    requests = [
        {"model": model, "seconds": "-1", **dict.fromkeys(keys, "5")}
        for model, forms in catalog.models.items()
        for keys in [(), *([each] for form in forms for each in catalog.document(form)["properties"])]
        if not {"model", "seconds"}.intersection(keys)
    ]
    shared = Pricer([read], catalog)

    assert len(requests) > 100
    for request in requests:
        assert Pricer([read], catalog).price(request, TODAY) == shared.price(request, TODAY), request

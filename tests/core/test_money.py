"""Amounts of money: exact, bounded, and never of two currencies."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.money import (
    CurrencyMismatch,
    Money,
    amount_text,
    from_nanos,
    parse_amount,
    parse_money,
    to_nanos,
)

AMOUNTS = st.integers(0, 10**18 - 1).map(from_nanos)


@pytest.mark.parametrize(
    "text",
    [
        "-1 USD",
        "1e3 USD",
        "NaN USD",
        "inf USD",
        "1 usd",
        "1 US",
        "USD 1",
        "USD",
        "",
        "1",
        "1,5 EUR",
        "1234567890 USD",
    ],
)
def test_what_is_not_an_amount_of_money(text: str) -> None:
    """Negative, huge and odd numbers are refused, and so is a number without its currency."""
    with pytest.raises(ValueError, match="50 USD"):
        parse_money(text)


@pytest.mark.parametrize(
    "text", ["-0.1", "NaN", "Infinity", "1e400", "1000000000", "0.0000000001", "0x1", ""]
)
def test_what_is_not_an_amount(text: str) -> None:
    """Every amount is finite, not negative, less than a billion, and in whole billionths."""
    with pytest.raises(ValueError, match="not an amount"):
        parse_amount(text)


def test_two_currencies_never_add_up() -> None:
    """They are neither added, nor subtracted, nor compared."""
    dollars, euros = parse_money("1 USD"), parse_money("1 EUR")

    for calculate in (Money.__add__, Money.__sub__, Money.__le__):
        with pytest.raises(CurrencyMismatch, match="currencies differ"):
            calculate(dollars, euros)


@given(AMOUNTS, AMOUNTS)
def test_sums_of_billionths_are_exact(first: Decimal, second: Decimal) -> None:
    """Whole billionths, as databases have them, add up to what the decimals add up to."""
    assert first + second == from_nanos(to_nanos(first) + to_nanos(second))


@given(AMOUNTS)
def test_what_is_written_is_read_again(amount: Decimal) -> None:
    """The text of an amount has all of its digits, and at least two after the point."""
    text = amount_text(amount)

    assert amount == parse_amount(text)
    assert len(text.partition(".")[2]) >= 2

"""
Amounts of money: exact decimals with a currency, from a billionth up to a billion.

They never become floats. In databases they are whole billionths, so that sums stay exact there too.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import Self

from msgspec import Struct

MONEY_FORMS = "a number and a currency, such as 50 USD or 0.50 USD"

DIGITS = 9
"""Digits before the point, and after it: amounts are less than a billion, in whole billionths."""

MAX_AMOUNT = Decimal(1).scaleb(DIGITS)
"""Every amount is less."""

_NANO = Decimal(1).scaleb(-DIGITS)
_CENT = Decimal("0.01")
_NUMBER = r"(?:[0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})"
_AMOUNT = rf"(?a)\s*({_NUMBER})\s*"
_MONEY = rf"(?a)\s*({_NUMBER})\s*([A-Z]{{3}})\s*"


class CurrencyMismatch(ValueError):
    """Two amounts have different currencies, and can't be added or compared."""


class Money(Struct, frozen=True):
    """
    An amount in a currency.

    Attributes:
        currency: Three capital letters, such as USD.

    >>> Money(Decimal("0.1"), "USD") + Money(Decimal("0.2"), "USD") == Money(Decimal("0.3"), "USD")
    True
    """

    amount: Decimal
    currency: str

    def __str__(self) -> str:
        return format_money(self.amount, self.currency)

    def __add__(self, other: Self) -> Money:
        return Money(self.amount + self._amount_of(other), self.currency)

    def __sub__(self, other: Self) -> Money:
        return Money(self.amount - self._amount_of(other), self.currency)

    def __le__(self, other: Self) -> bool:
        return self.amount <= self._amount_of(other)

    def _amount_of(self, other: Self) -> Decimal:
        """
        Return the amount of another sum in the same currency.

        Raises:
            CurrencyMismatch: It is in another one.
        """
        if other.currency != self.currency:
            raise CurrencyMismatch(f"{self} and {other} can't be added up: the currencies differ")
        return other.amount


def parse_money(text: str) -> Money:
    """
    Parse an amount with its currency.

    >>> parse_money("50 USD"), parse_money("0.50USD")
    (Money(amount=Decimal('50'), currency='USD'), Money(amount=Decimal('0.50'), currency='USD'))

    Raises:
        ValueError: It is negative, has no currency, is a billion or more, or is not an amount.
    """
    found = re.fullmatch(_MONEY, text)
    if found is None:
        if re.fullmatch(_AMOUNT, text):
            raise ValueError(f"{text!r} has no currency; write {MONEY_FORMS}")
        raise ValueError(f"{_quoted(text)} is not an amount of money; write {MONEY_FORMS}")
    return Money(Decimal(found[1]), found[2])


def parse_amount(text: str) -> Decimal:
    """
    Parse an amount without a currency.

    >>> parse_amount("0.05")
    Decimal('0.05')

    Raises:
        ValueError: It is negative, not finite, a billion or more, or has more than nine digits after the point.
    """
    found = re.fullmatch(_AMOUNT, text)
    if found is None:
        raise ValueError(
            f"{_quoted(text)} is not an amount: a number from 0 to {'9' * DIGITS}, with at most {DIGITS} digits "
            "after the point"
        )
    return Decimal(found[1])


def round_up(amount: Decimal) -> Decimal:
    """
    Round an amount up to a whole billionth.

    >>> round_up(Decimal("0.0000000001"))
    Decimal('1E-9')
    """
    return amount.quantize(_NANO, ROUND_CEILING)


def to_nanos(amount: Decimal) -> int:
    """
    Return an amount in billionths, rounded up, as databases store it.

    >>> to_nanos(Decimal("0.05"))
    50000000
    """
    return int(round_up(amount).scaleb(DIGITS))


def from_nanos(nanos: int) -> Decimal:
    """
    Convert billionths to an amount.

    >>> from_nanos(50_000_000)
    Decimal('0.050000000')
    """
    return Decimal(nanos).scaleb(-DIGITS)


def amount_text(amount: Decimal) -> str:
    """
    Write an amount with as many digits as it needs, and at least two after the point.

    >>> amount_text(Decimal("1.2")), amount_text(Decimal("0.121000000")), amount_text(Decimal(0))
    ('1.20', '0.121', '0.00')
    """
    shortest = amount.normalize()
    return f"{shortest if shortest.as_tuple().exponent < -2 else amount.quantize(_CENT):f}"  # type: ignore[operator]  # amounts are finite


# Most jobs of a run have one of few prices.
@lru_cache(maxsize=1024)
def nanos_text(nanos: int) -> str:
    """
    Format billionths like `amount_text`.

    >>> nanos_text(1_200_000_000)
    '1.20'
    """
    return amount_text(from_nanos(nanos))


def format_money(amount: Decimal, currency: str) -> str:
    """
    Write an amount for people.

    >>> format_money(Decimal("1234.5"), "USD")
    '1,234.50 USD'
    """
    return f"{Decimal(amount_text(amount)):,f} {currency}"


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:39]}…")

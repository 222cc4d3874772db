"""Amounts of money in text: position, value and currency.

Groups of three digits are thousands, whatever the separator; one or two digits after the last separator are decimals:
`1.299,00`, `1,299.00`, `12,5`, `44 890`, and in India `1,29,999`. So `24.990` is 24,990, except in currencies with
three decimals. In France the currency sign may replace the decimal point: `12€99`.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from price_parser import Price

AMOUNT: Final = re.compile(
    r"(?<![\w.,])"
    r"(?:[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}(?:\.[0-9]{1,2})?"
    r"|[0-9]{1,3}(?:[ ,.'’\u00a0\u202f\u2009][0-9]{3})+(?:[.,][0-9]{1,2})?"
    r"|[0-9]{1,9}(?:[.,][0-9]{1,2})?)"
    r"(?![0-9]|[.,][0-9])"
)
MAX_AMOUNT: Final = Decimal(1_000_000_000)
# Currencies without decimals in use, and currencies with three decimals.
WHOLE: Final = frozenset({"CLP", "COP", "PYG", "IDR", "VND", "KRW", "ISK", "HUF", "JPY"})
_THOUSANDTHS: Final = frozenset({"KWD", "BHD", "OMR", "JOD", "TND", "IQD", "LYD"})
_SIGN_AS_POINT: Final = re.compile(r"(?<![0-9.,])([0-9]{1,4}) ?([€£$]) ?([0-9]{2})(?![0-9.,])")

# Signs of a single currency; $, kr and ¥ belong to several.
_SIGNS: Final[dict[str, str]] = {
    "£": "GBP", "€": "EUR", "zł": "PLN", "₹": "INR", "Kč": "CZK", "Ft": "HUF", "₩": "KRW", "원": "KRW",
    "₺": "TRY", "₴": "UAH", "₽": "RUB", "руб": "RUB", "₸": "KZT", "тг": "KZT", "тңг": "KZT", "lei": "RON",
    "Lei": "RON", "LEI": "RON", "Kn": "HRK", "kn": "HRK", "R$": "BRL", "US$": "USD", "CA$": "CAD", "C$": "CAD",
    "A$": "AUD", "AU$": "AUD", "NZ$": "NZD", "HK$": "HKD", "S$": "SGD", "NT$": "TWD", "MX$": "MXN",
    "CL$": "CLP", "₪": "ILS", "฿": "THB", "₫": "VND", "đ": "VND", "Rp": "IDR", "RM": "MYR", "₱": "PHP",
    "₦": "NGN", "лв": "BGN", "円": "JPY", "Fr.": "CHF",
}  # fmt: skip
_AMBIGUOUS: Final = ("$", "¥", "￥", "kr", "元", "TL")
_CODES: Final = (
    "EUR", "USD", "GBP", "CHF", "CAD", "AUD", "NZD", "JPY", "CNY", "TWD", "HKD", "SGD", "KRW", "INR", "BRL", "MXN",
    "CLP", "ARS", "COP", "PEN", "PLN", "CZK", "HUF", "RON", "BGN", "HRK", "RSD", "DKK", "SEK", "NOK", "ISK", "TRY",
    "UAH", "RUB", "KZT", "ILS", "AED", "SAR", "QAR", "KWD", "EGP", "ZAR", "NGN", "KES", "MAD", "THB", "VND", "IDR",
    "MYR", "PHP", "PKR",
)  # fmt: skip
_SIGN: Final = re.compile(
    "|".join(
        [rf"(?<![A-Za-z]){code}(?![A-Za-z])" for code in _CODES]
        + [
            re.escape(sign) if not sign.isalpha() else rf"(?<![^\W\d_]){re.escape(sign)}(?![^\W\d_])"
            for sign in sorted({*_SIGNS, *_AMBIGUOUS}, key=len, reverse=True)
        ]
    )
)


@dataclass(frozen=True)
class Money:
    """An amount and the code of its currency, empty if ambiguous."""

    amount: Decimal
    currency: str = ""


def amounts_in(text: str) -> list[re.Match[str]]:
    """Return the matches of amounts in a text."""
    return list(AMOUNT.finditer(text))


def amount_of(text: str, currency: str = "") -> Decimal | None:
    """Return the first amount of a text; None without one or for an amount out of range.

    >>> amount_of("24.990"), amount_of("1.299,00 €"), amount_of("free")
    (Decimal('24990'), Decimal('1299.00'), None)
    """
    found = AMOUNT.search(text)
    if not found:
        return None
    digits = found.group().replace("’", "'")
    point = "." if currency in _THOUSANDTHS and re.fullmatch(r"[0-9]{1,3}\.[0-9]{3}", digits) else None
    return _possible(Price.fromstring(digits, decimal_separator=point).amount)


def machine_amount(value: Any, currency: str) -> Decimal | None:
    """Return an amount from structured data, where a point precedes any number of decimals.

    Exception: in currencies without decimals, shops write `24.990` for 24,990 there too.

    >>> machine_amount("49.9900", "EUR"), machine_amount("24.990", "EUR"), machine_amount("24.990", "CLP")
    (Decimal('49.9900'), Decimal('24.990'), Decimal('24990'))
    """
    text = str(value).strip()[:40]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    is_grouped = currency in WHOLE and re.fullmatch(r"[0-9]{1,3}\.[0-9]{3}", text)
    if not isinstance(value, str) or (currency and not is_grouped and re.fullmatch(r"[0-9]{1,12}\.[0-9]{3,8}", text)):
        return _possible(Decimal(text) if re.fullmatch(r"[0-9]{1,12}(\.[0-9]+)?", text) else None)
    if re.fullmatch(r"[0-9]{1,12}\.[0-9]{4,8}", text):
        return _possible(Decimal(text))
    return amount_of(text, currency) if len(amounts_in(text)) == 1 else None


def tidy(text: str) -> str:
    """Return a text on one line, with a decimal point in place of a currency sign.

    >>> tidy("12€99"), tidy("12 €")
    ('12.99 €', '12 €')
    """
    return _SIGN_AS_POINT.sub(r"\1.\3 \2", " ".join(text.split()))


def _possible(amount: Decimal | None) -> Decimal | None:
    return amount if amount is not None and Decimal("0.005") <= amount < MAX_AMOUNT else None


def has_sign(text: str) -> bool:
    """Return whether a text holds a currency sign or code."""
    return bool(_SIGN.search(text))


def currency_in(text: str) -> str:
    """Return the code of the only currency in a text; empty for none, several, or an ambiguous sign."""
    signs = {_SIGNS.get(sign, sign if sign in _CODES else "") for sign in _SIGN.findall(text)}
    return signs.pop() if len(signs) == 1 else ""

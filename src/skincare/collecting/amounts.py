"""Amounts of money in text: where they stand, what they say, and in which currency.

An amount groups its digits by threes with any separator, and one or two digits after the last separator are decimals:
`1.299,00`, `1,299.00`, `12,5`, `44 890`; so `24.990` is twenty-four thousand, as it is wherever shops write it.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from price_parser import Price

AMOUNT: Final = re.compile(
    r"(?<![\w.,])"
    r"(?:[0-9]{1,3}(?:[ ,.'’\u00a0\u202f\u2009][0-9]{3})+(?:[.,][0-9]{1,2})?|[0-9]{1,9}(?:[.,][0-9]{1,2})?)"
    r"(?![0-9]|[.,][0-9])"
)
MAX_AMOUNT: Final = Decimal(1_000_000_000)

# Signs of one country's money. A bare $, kr or ¥ is money of several.
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
    """An amount and, where it is plain, the code of its currency."""

    amount: Decimal
    currency: str = ""


def amounts_in(text: str) -> list[re.Match[str]]:
    """Return where amounts stand in a text."""
    return list(AMOUNT.finditer(text))


def amount_of(text: str) -> Decimal | None:
    """Return the first amount of a text; None for none, and for what no product costs.

    >>> amount_of("24.990"), amount_of("1.299,00 €"), amount_of("free")
    (Decimal('24990'), Decimal('1299.00'), None)
    """
    found = AMOUNT.search(text)
    parsed = Price.fromstring(found.group().replace("’", "'")).amount if found else None
    return parsed if parsed is not None and Decimal("0.005") <= parsed < MAX_AMOUNT else None


def has_sign(text: str) -> bool:
    """Say whether a text holds a sign or a code of a currency."""
    return bool(_SIGN.search(text))


def currency_in(text: str) -> str:
    """Return the code of the one currency that a text names; empty for none, several, or money of several countries."""
    signs = {_SIGNS.get(sign, sign if sign in _CODES else "") for sign in _SIGN.findall(text)}
    return signs.pop() if len(signs) == 1 else ""

"""Repairs quantities in lines with OCR errors, so that `skincare.product.sizes` parses them: text in, text out.

e 5Oml 1.7 FL.0Z.   -> 50 ml 1.7 fl oz     letters for digits, the estimated sign
50ML1.7FL.OZ        -> 50 ml 1.7 fl oz     spaces lost
1 5 0 ml            -> 150 ml              spaces added
"""

import re
from collections.abc import Callable
from typing import Final

# The estimated sign of EU directive 76/211/EEC next to a quantity, which OCR reads as an e or c.
_SIGN: Final = "[eE℮ⓔ€©@]"
_START: Final = r"(?<![a-z\d.,])"
_UNIT: Final = r"(?=\s?(?:ml|gr?m?|oz|fl)(?![a-z]))"
_OUNCES: Final = r"fl\.?\s?oz|oz"
_LABELS: Final = "net|wt|weight|vol|volume|contents?|contenu|inhalt|contenido|contenuto"
# Letters that OCR returns for digits.
_DIGITS: Final = str.maketrans("oOiIlL|sSzZB", "001111155228")

_Replacement = str | Callable[[re.Match[str]], str]


def _as_digits(match: re.Match[str]) -> str:
    return match[0].translate(_DIGITS)


def _joined(match: re.Match[str]) -> str:
    return match[0].replace(" ", "")


_REPAIRS: Final[tuple[tuple[re.Pattern[str], _Replacement], ...]] = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        (rf"(?<=\d)(o?\s?(?:ml|cl|l|g|kg))\s?{_SIGN}(?![a-z])", r"\1 "),
        (r"(?<=\d)(o?\s?ml)c(?![a-z])", r"\1 "),
        (rf"(?<![a-z]){_SIGN}(?=\d)", " "),
        # Units: "mI", "m1", "rnl", "nl", "m l"; "50g" as "50q"; мл in similar Latin letters.
        (r"(?<=[\do])\s?(?:m[i1|!]|rn[l1i|]|nl|m\sl|mji|mjl|mj|m/i)(?![a-z\d])", " ml"),
        (r"(?<=\d)\s?q\b", " g"),
        (r"(?<=\d)\.?\s?f[li1|]{0,2}[.,]?\s?(?:us\s?)?[o0][z2](?![a-z])", " fl oz"),
        (r"(?<=\d)\.?\s?[o0]z\b", " oz"),
        (r"(?<=oz)\.?\s?liq\b", " "),
        # A unit without its last letter, if the line has nothing else; "12M" is the time after opening.
        (r"^(\W*e?\s?\d{1,2}[05])\s?m\W*$", r"\1 ml"),
        # Digits: "l00 ml", "5O ml", "1S0 ml", "IOOml", "l.O fl oz".
        (rf"{_START}(?:\d|[ilsz|B]\d)[\doilsz|B]{{0,3}}{_UNIT}", _as_digits),
        (rf"{_START}[ilsz|]o{{1,2}}(?=\s?ml)", _as_digits),
        (rf"{_START}[\dil|][.,][\doil]{{1,2}}(?=\s?(?:{_OUNCES}))", _as_digits),
        (r"(?<=\d)o(?=[\do.,]|\s?(?:cl|kg|l)\b)", "0"),
        # Spaces in a number: "5 0 ml", "2 00 ml", "1 5 0 ml".
        (rf"{_START}\d(?: 00| \d 0|\d? 0)(?=\s?(?:ml|g)\b)", _joined),
        # Spaces between quantities, and after a label: "50ml1.7fl.oz", "NETWT.50g".
        (rf"(?<=\d)(\s?(?:ml|g|{_OUNCES}))\.?(?=\d)", r"\1 "),
        (rf"(?:{_LABELS})[.:]*(?=\d)", " "),
        (rf"{_START}\.(?=\d{{1,2}}\s?(?:{_OUNCES})(?![a-z]))", "0."),
        # The unit in front, as in Italian: "ml 50".
        (r"^(\D*)(?<![^\W\d_])(ml|gr)\.?\s?(\d{2,3})(?=\s?[e℮]?\s*$)", r"\1\3 \2 "),
    )
)


def repair_size(text: str) -> str:
    """Return a line with the misreadings of quantities repaired; other text may change, too."""
    for pattern, replacement in _REPAIRS:
        text = pattern.sub(replacement, text)
    return text

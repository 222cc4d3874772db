"""Sizes of products: text in, a quantity with its unit out.

    >>> [str(parse_size(text)) for text in ("Genifique Serum 30ml", "Face Mask 2x8ml", "6.7 fl oz / 200 ml")]
    ['30 ml', '2 x 8 ml', '200 ml']

Packs state one quantity in several units ("118ml/4oz"): the metric one counts. A text that states two different
quantities (a set of products) has no size. A name without its size is the family of the product: the same for all sizes
of it, which a split keeps together.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

Dimension = Literal["volume", "mass", "count"]

# Unit as written (without dots and spaces) -> dimension and factor to ml, g or pieces. Fluid ounces are US ones, as
# packs state them next to millilitres: NIST Handbook 44, appendix C. A bare "oz" is a mass unless it accompanies ml.
_UNITS: Final[dict[str, tuple[Dimension, float]]] = {
    **dict.fromkeys(("ml", "millilitre", "millilitres", "milliliter", "milliliters", "мл"), ("volume", 1.0)),
    **dict.fromkeys(("cl", "centilitre", "centilitres"), ("volume", 10.0)),
    **dict.fromkeys(("dl",), ("volume", 100.0)),
    **dict.fromkeys(("l", "lt", "ltr", "litre", "litres", "liter", "liters", "л"), ("volume", 1000.0)),
    **dict.fromkeys(("floz", "fluidounce", "fluidounces", "fl"), ("volume", 29.5735)),
    **dict.fromkeys(("毫升", "ミリリットル", "밀리리터", "มล", "มิลลิลิตร", "مل"), ("volume", 1.0)),
    **dict.fromkeys(("克", "グラム", "그램", "กรัม", "غم"), ("mass", 1.0)),
    **dict.fromkeys(("g", "gr", "gm", "gms", "gram", "grams", "gramme", "grammes", "г"), ("mass", 1.0)),
    **dict.fromkeys(("kg", "kgs", "kilo", "kilos", "kilogram", "kilograms", "кг"), ("mass", 1000.0)),
    **dict.fromkeys(("mg",), ("mass", 0.001)),
    **dict.fromkeys(("oz", "ounce", "ounces"), ("mass", 28.3495)),
    **dict.fromkeys(("lb", "lbs", "pound", "pounds"), ("mass", 453.592)),
}
_PIECES: Final = (
    r"capsules?|pads?|sheets?|patche?s?|wipes?|cloths?|sachets?|ampoules?|masks?|pieces?|pcs|pairs?|strips?|tablets?|ea|"
    r"applications?|discs?|swabs?|count|ct|packs?"
)
_METRIC: Final = frozenset({"ml", "cl", "dl", "l", "g", "kg", "mg"})

_NUMBER: Final = r"\d{1,5}(?:[.,]\d{1,4})*"
_MEASURE: Final = (
    r"(?:fl\.?\s?oz\.?|fluid\s?ounces?|milli-?lit(?:re|er)s?|centi-?lit(?:re|er)s?|lit(?:re|er)s?|kilo(?:gram)?s?|"
    r"gram(?:me)?s?|pounds?|ounces?|gms?|gr|ml|cl|dl|ltr?|kgs?|mg|oz\.?|lbs?|fl|мл|кг|г|л|l|g|"
    r"毫升|ミリリットル|밀리리터|มล|มิลลิลิตร|مل|克|グラム|그램|กรัม|غم)"
)
# A letter, an apostrophe or a digit behind the unit makes it another word: "No.7 L'Oréal", "C+ 15 Glow".
_END: Final = r"(?![\w'’%])"
_START: Final = r"(?<![\w.,])"
_QUANTITY: Final = re.compile(
    rf"{_START}(?:(?P<before>\d{{1,3}})\s?[x×*]\s?)?(?P<number>{_NUMBER})\s?-?\s?(?P<unit>{_MEASURE}){_END}"
    rf"(?:\s?[x×*]\s?(?P<after>\d{{1,3}})(?![\d.,]|\s?{_MEASURE}{_END}))?",
    re.IGNORECASE,
)
_COUNT: Final = re.compile(
    rf"{_START}(?P<number>\d{{1,4}})\s?-?\s?(?:{_PIECES}){_END}|\b(?:pack|box|set)\s+of\s+(?P<of>\d{{1,3}})\b|"
    rf"\b(?:{_PIECES})\s?[x×]\s?(?P<times>\d{{1,3}})(?![\w.,])",
    re.IGNORECASE,
)
# "70ml 2 Pack", "Pack of 3 x 15 g" and "(pack of 2)" multiply the quantity that stands with them.
_PACKS: Final = re.compile(
    rf"{_START}(?P<number>\d{{1,3}})\s?-?\s?packs?{_END}|\bpack\s+of\s+(?P<of>\d{{1,3}})\b|(?P<twin>\btwin\s+pack\b)",
    re.IGNORECASE,
)
_SIZES: Final = (_QUANTITY, _COUNT, _PACKS)
# Between a letter of a script without blanks and an ASCII letter or digit: 容量20mL入り.
_ASIAN: Final = r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]"
_UNSPACED: Final = re.compile(rf"(?<={_ASIAN})(?=[0-9A-Za-z])|(?<=[0-9A-Za-z])(?={_ASIAN})")
_FRACTION: Final = re.compile(r"(\d{0,4})\s?([¼-¾⅐-⅞])")
# "2 1/2 oz"; with other units a slash stands between two quantities.
_OUNCE_FRACTION: Final = re.compile(
    r"(?<![\w.,/])(?:(\d{1,2})[\s-])?([1-7])/([2348])(?=\s?-?\s?(?:fl|oz|ounce))", re.IGNORECASE
)

# What is taken for one quantity in two units: packs round "3.4 fl oz" of 100 ml and "1.7 oz" of 50 ml.
_SAME: Final = 0.06
_MAX_CHARACTERS: Final = 500
# Larger amounts in ml or g are misread, and their text would not be parsed again.
_MAX_AMOUNT: Final = 99_999.0


@dataclass(frozen=True)
class Size:
    """`n` packs of an `amount` in ml, g or pieces, as `unit` says."""

    amount: float
    unit: Literal["ml", "g", "pieces"]
    n: int = 1

    def __str__(self) -> str:
        """Return the canonical text, such as `2 x 50 ml`."""
        # Not three decimals, which would be read as thousands.
        text = f"{round(self.amount, 2):.6g} {self.unit}"
        return text if self.n == 1 else f"{self.n} x {text}"

    @property
    def total(self) -> float:
        """Return the quantity of all packs together."""
        return self.n * self.amount

    def equals(self, other: "Size", tolerance: float = 0.02) -> bool:
        """Tell whether two sizes are the same quantity within a relative tolerance."""
        if self.unit != other.unit:
            return False
        return abs(self.total - other.total) <= tolerance * max(self.total, other.total)


@dataclass(frozen=True)
class Quantity:
    """One quantity in a text. has_own_count: written as "2 x 50 ml"."""

    size: Size
    is_metric: bool
    has_own_count: bool


def parse_size(text: str) -> Size | None:
    """Return the size that a text states; None where it states none, or several that differ."""
    text = _spaced(text)
    found = list(quantities(text))
    if not found:
        return _counted(text)
    metric = [one for one in found if one.is_metric] or found
    first = metric[0]
    if any(not _is_same(first.size, one.size) for one in found if one.is_metric or not metric[0].is_metric):
        return None
    packs = _n_packs(text)
    if packs > 1 and not first.has_own_count:
        return Size(first.size.amount, first.size.unit, packs)
    return first.size


def size_in_name(name: str) -> str:
    """Return the first size in a name as written; empty if there is none.

    "Paula's Choice 2% BHA Liquid Exfoliant (118ml)" -> "118ml"
    """
    found = min((match for pattern in _SIZES if (match := pattern.search(name))), key=re.Match.start, default=None)
    return found.group().rstrip(".") if found else ""


def name_family(name: str) -> str:
    """Return the name without size, case, accents and punctuation: equal for the sizes of one product.

    "Clinique Moisture Surge 72-Hour Hydrator (50ml)" -> "clinique moisture surge 72 hour hydrator".
    It puts 84 of the reference catalogue's 1,126 products into 40 families, all of them sizes or counts of one product
    (checked by hand).
    """
    decomposed = unicodedata.normalize("NFKD", name).casefold()
    plain = "".join(character for character in decomposed if not unicodedata.combining(character))
    without_size = plain
    for pattern in _SIZES:
        without_size = pattern.sub(" ", without_size)
    return _words(without_size) or _words(plain)


def _words(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text))


def quantities(text: str) -> Iterator[Quantity]:
    """Yield the quantities with a unit of volume or mass, in order."""
    for match in _QUANTITY.finditer(_spaced(text)):
        unit = re.sub(r"[\s.-]", "", match["unit"].lower())
        number = _number(match["number"], unit)
        dimension, factor = _UNITS[unit]
        n = int(match["before"] or match["after"] or 1)
        amount = round(number * factor, 3)
        if not 0.005 < amount <= _MAX_AMOUNT or not 0 < n <= 200:
            continue
        yield Quantity(
            Size(amount, "ml" if dimension == "volume" else "g", n),
            unit in _METRIC or factor in (1.0, 10.0, 100.0, 1000.0),
            n > 1,
        )


def _spaced(text: str) -> str:
    """Return the text with half-width characters, and blanks between letters of scripts without them and numbers."""
    text = re.sub("[®™©]", " ", text[:_MAX_CHARACTERS])
    # Not three decimals, which would be read as thousands.
    text = _FRACTION.sub(lambda match: f"{int(match[1] or 0) + unicodedata.numeric(match[2]):.4f}", text)
    text = _OUNCE_FRACTION.sub(lambda match: f"{int(match[1] or 0) + int(match[2]) / int(match[3]):.4f}", text)
    return _UNSPACED.sub(" ", unicodedata.normalize("NFKC", text))


def _number(text: str, unit: str) -> float:
    """Return a number as packs write it: "1,5" and "1.5" are decimals, "1,000" ml is a thousand, "1.014" oz is not."""
    parts = re.split("[.,]", text)
    if len(parts) == 1:
        return float(text)
    is_small_unit = unit not in ("l", "kg", "litre", "liter", "litres", "liters", "oz", "floz", "lb", "lbs")
    if all(len(part) == 3 for part in parts[1:]) and parts[0] != "0" and is_small_unit:
        return float("".join(parts))
    return float(f"{parts[0]}.{parts[1]}") if len(parts) == 2 else 0.0


def _counted(text: str) -> Size | None:
    counts = {int(match["number"] or match["of"] or match["times"]) for match in _COUNT.finditer(text)}
    if len(counts) != 1 or not (n := counts.pop()):
        return None
    return Size(float(n), "pieces")


def _n_packs(text: str) -> int:
    found = {2 if match["twin"] else int(match["number"] or match["of"]) for match in _PACKS.finditer(text)}
    return found.pop() if len(found) == 1 else 1


def _is_same(one: Size, other: Size) -> bool:
    """Tell whether two statements are one quantity: in one unit, or of a pack and of all packs together."""
    if one.unit != other.unit:
        # "50 ml / 52 g" and "4 oz. - 118 ml": a pack that states both; a gram is about a millilitre.
        return abs(one.amount - other.amount) <= 0.25 * max(one.amount, other.amount)
    return one.equals(other, _SAME) or abs(one.amount - other.total) <= _SAME * other.total

"""Finds the brand of a pack that no list knows: the line that is printed like one.

Brands are printed large, at the top or bottom of a pack, in one or two words that are neither claims nor ingredients;
often several times, with a trade mark, next to "laboratoires" or "official store", or as the domain of a web address.
Each sign adds to a line's score, and without enough of them there is no brand.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from skincare.product.normalisation import normalised
from skincare.product.sizes import parse_size
from skincare.text_reading.line_groups import LineGroups, extent, is_lettered
from skincare.text_reading.pack_text import TextLine
from skincare.text_reading.pack_vocabulary import category_words, unusual_words
from skincare.text_reading.scripts import misread_script

_MAX_WORDS: Final = 4
_MAX_CHARACTERS: Final = 30
_MIN_CONFIDENCE: Final = 0.92
# In an image with text of a script that the OCR model lacks, most lines of lower confidence are misread.
_MIN_CONFIDENCE_MISREAD: Final = 0.97
_MIN_JOINED_HEIGHT: Final = 0.75

# Weights of the signs next to the print size (0 to 1) and the minimum score, chosen by hand on the development photos
# of `benchmarks/pack_marks.csv` with all known brands withheld.
_TOP, _BOTTOM, _REPEATED, _TRADE_MARK, _COMPANY, _WEB, _DOCTOR = 0.45, 0.2, 0.3, 0.5, 0.35, 0.6, 0.5
_ORDINARY_LOSS, _MISREAD_LOSS = 0.3, 0.5
_MIN_SCORE: Final = 0.8
# Longer lines are cut, so that hostile text takes no time.
_MAX_LENGTH: Final = 200

# Words that end a brand in the line below it: "LOTUS / HERBALS".
_LAST_WORDS: Final = frozenset(
    (
        *("company", "co", "labs", "organics", "herbals", "botanicals", "naturals", "beauty", "cosmetics"),
        *("apothecary", "shop", "store"),
    )
)
# Words in a brand's line or the one below.
_COMPANY_WORDS: Final = _LAST_WORDS.union(
    ("laboratoire", "laboratoires", "laboratorio", "laboratorios", "labor", "lab", "cosmetic", "cosmetiques"),
    ("skincare", "naturkosmetik", "organic", "paris", "london", "milano", "york", "korea", "since", "est", "official"),
    ("professional", "dermatologique", "cosmeceuticals", "solutions"),
)
_NO_COMPANY: Final = frozenset({"official", "online", "all", "your", "of", "in", "with", "from"})
_NEVER_FIRST: Final = frozenset({"new", "neu", "nouveau", "vegan", "bio", "natural"})
_DOCTORS: Final = re.compile(r"^(?:dr|doctor|doktor|prof)\b\.?\s*\w", re.IGNORECASE)
_LABORATORY: Final = re.compile(r"^labora[a-z]{3,8}s?\s+(?:d[eu]s?\s+)?\w", re.IGNORECASE)
_WEB_ADDRESS: Final = re.compile(
    r"(?:www\.|@)([\w-]{3,30})|\b([\w-]{3,30})\.(?:com|net|org|in|ru|de|fr|co\b)", re.IGNORECASE
)
_SPACED: Final = re.compile(r"^(?:\w ){2,}\w$")
_SENTENCE: Final = re.compile(r"^[wW]{3}|[,:;!?%+/|•*#\[\]=<>]|\d{2,}|[.,]\s+\w+\s+\w+\s")
# Letters of Vietnamese, also as the OCR model writes those that it lacks; known brands with such letters are found
# before.
_VIETNAMESE: Final = re.compile(r"[ăâđêôơưĂÂĐÊÔƠƯÄÖÜÕÃÒÓÙÚÌÍ]")
_EDGES: Final = " .,+®™°|*\"'-_·•»«"


@dataclass(frozen=True)
class _Candidate:
    text: str
    lines: tuple[TextLine, ...]


class _Pack:
    """The lines of a pack with what the scores of all candidates need."""

    def __init__(self, lines: Sequence[TextLine]) -> None:
        self.groups = LineGroups(lines)
        self.tallest = max(line.height for line in lines)
        downwards = sorted(lines, key=lambda line: extent(line)[1])
        self._rank = {id(line): rank for rank, line in enumerate(downwards)}
        self._keys = [(line, _key(line.text)) for line in lines]
        self.domains = {
            _key(match[1] or match[2]) for line in lines for match in _WEB_ADDRESS.finditer(line.text[:_MAX_LENGTH])
        }

    def depth(self, line: TextLine) -> float:
        """Return 0 for the topmost line, up to nearly 1 for the lowest one."""
        return self._rank[id(line)] / len(self._rank)

    def is_last(self, line: TextLine) -> bool:
        """Return whether a line is one of the two lowest ones."""
        return len(self._rank) > 1 and self._rank[id(line)] >= len(self._rank) - 2

    def repeats(self, one: _Candidate) -> bool:
        """Return whether other lines hold the candidate, too."""
        key = _key(one.text)
        return any(key in other for line, other in self._keys if line not in one.lines)


def unknown_brand(
    lines: Sequence[TextLine], common_words: frozenset[str] = frozenset()
) -> tuple[str, Sequence[TextLine]]:
    """Return the line, or two lines, printed like a brand, with its lines; an empty text if there is none.

    common_words: further words that are no brand, in lower case.
    """
    lettered = [line for line in lines if is_lettered(line)]
    if not lettered:
        return "", ()
    pack = _Pack(lettered)
    candidates = _candidates(pack, common_words)
    scored = [(_score(one, pack), len(one.text), one) for one in candidates]
    score, _, best = max(scored, key=lambda one: one[:2], default=(0.0, 0, None))
    if best is None or score < _MIN_SCORE:
        return "", ()
    # The line may be cut off where the pack's edge hides it.
    whole = [one for one in candidates if one.text.casefold().startswith(best.text.casefold())]
    best = max((one for one in whole if len(one.text.split()) == len(best.text.split())), key=lambda one: len(one.text))
    return best.text, best.lines


def _candidates(pack: _Pack, common_words: frozenset[str]) -> list[_Candidate]:
    least = _MIN_CONFIDENCE_MISREAD if misread_script(pack.groups.lines) else _MIN_CONFIDENCE
    found = []
    for group in pack.groups:
        if len(group) > 2 or min(line.confidence for line in group) < least:
            continue
        texts = [_unspaced(line.text[:_MAX_LENGTH]) for line in group]
        text = " ".join(texts).strip(_EDGES)
        if len(group) == 2 and not (pack.groups.below(group[0]) is group[1] and _continues(group, texts)):
            continue
        if _is_brandlike(text, common_words):
            found.append(_Candidate(text, group))
    # A line is no brand by itself where it continues in the next one.
    parts = {normalised(line.text) for one in found if len(one.lines) > 1 for line in one.lines}
    return [one for one in found if len(one.lines) > 1 or normalised(one.text) not in parts]


def _continues(group: tuple[TextLine, ...], texts: Sequence[str]) -> bool:
    """Return whether the second of two lines continues the brand in the first one."""
    if set(normalised(texts[1]).split()) <= _LAST_WORDS:
        return True
    heights = sorted(line.height for line in group)
    is_alike = heights[0] >= _MIN_JOINED_HEIGHT * heights[1] and texts[0].isupper() == texts[1].isupper()
    is_opened = normalised(texts[0]) not in _NEVER_FIRST
    return is_alike and is_opened and all(len(text.split()) == 1 for text in texts) and bool(unusual_words(texts[1]))


def _is_brandlike(text: str, common_words: frozenset[str]) -> bool:
    words = normalised(text).split()
    n_letters = sum(map(str.isalpha, text))
    if not 1 <= len(words) <= _MAX_WORDS or not 2 < len(text) <= _MAX_CHARACTERS or n_letters < 0.6 * len(text):
        return False
    if _SENTENCE.search(text) or parse_size(text) or set(words) & category_words() or _VIETNAMESE.search(text):
        return False
    unusual = [word for word in unusual_words(text) if word not in common_words and len(word) > 2]
    is_company = len(words) > 1 and (words[-1] in _LAST_WORDS or words[0] == "the") and not _NO_COMPANY & set(words)
    return bool(unusual) or is_company or bool(_DOCTORS.match(text))


def _score(one: _Candidate, pack: _Pack) -> float:
    """Return the sum of the signs that a candidate is the brand."""
    words = normalised(one.text).split()
    following = pack.groups.below(one.lines[-1])
    near = {*words, *(normalised(_unspaced(following.text)).split() if following else ())}
    signs = (
        max(line.height for line in one.lines) / pack.tallest,
        _TOP * (1 - pack.depth(one.lines[0])) ** 2,
        _BOTTOM * any(map(pack.is_last, one.lines)),
        _REPEATED * pack.repeats(one),
        _TRADE_MARK * any(mark in line.text for line in one.lines for mark in "®™"),
        _DOCTOR * bool(_DOCTORS.match(one.text) or _LABORATORY.match(one.text)),
        _COMPANY * bool(_COMPANY_WORDS & near),
        _WEB * (_key(one.text) in pack.domains),
    )
    n_unusual = len(unusual_words(one.text)) + len(_LAST_WORDS & set(words[1:]))
    least = min(line.confidence for line in one.lines)
    return sum(signs) - _ORDINARY_LOSS * (1 - n_unusual / len(words)) - _MISREAD_LOSS * (1 - least)


def _key(text: str) -> str:
    return normalised(text[:_MAX_LENGTH]).replace(" ", "")


def _unspaced(text: str) -> str:
    """Return the text without blanks if it consists of single letters: "H E R B A L S"."""
    return text.replace(" ", "") if _SPACED.match(text.strip()) else text

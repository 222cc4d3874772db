"""Finds known brands in the lines of a pack, read with errors: lines in, the most prominent known brand out.

A brand matches a whole line, two or three lines below each other ("PAULA'S / CHOICE"), or words inside a line ("ANUA
HEARTLEAF QUERCETINOL"). Matching ignores case, accents, blanks and punctuation, treats digits as the letters they are
mistaken for, and accepts a misread letter in long brands ("THE BOOY SHOP").
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from skincare.product.normalisation import normalised
from skincare.text_reading.line_groups import LineGroups, extent, is_lettered
from skincare.text_reading.misreadings import Misreadings, edit_distance
from skincare.text_reading.pack_text import TextLine
from skincare.text_reading.pack_vocabulary import pack_words
from skincare.text_reading.phrases import fold, tokenise

_MAX_WORDS: Final = 4
# Shorter brands match only a whole line: "MAC" is in many words.
_MIN_INSIDE: Final = 5
_MIN_MISREAD, _MAX_MISREAD = 5, 26
_MIN_CUT_OFF: Final = 6
# The OCR model reports lower confidences of lines with a misread letter.
_MISREAD_CONFIDENCE: Final = 0.96
# A brand of ordinary words ("Simple", "Fresh") counts only in print of at least this share of the largest one.
_MIN_ORDINARY_HEIGHT: Final = 0.45
_CONFUSED: Final = str.maketrans("0135689|!i", "olesbbglll")
# The longer a match, the less it is one by chance.
_PER_LETTER: Final = 0.04
# Weights of the ways to match; print size and position add up to 1.
_SIZE_SHARE: Final = 0.7
_WHOLE, _MISREAD, _AT_START, _INSIDE = 3.0, 2.2, 2.2, 1.4


@dataclass(frozen=True)
class BrandMatch:
    """A known brand in its canonical spelling and the lines that hold it."""

    brand: str
    lines: tuple[TextLine, ...]
    weight: float


class KnownBrands:
    """Matches a list of brands against lines."""

    def __init__(self, brands: Iterable[str]) -> None:
        self._spelled: dict[str, str] = {}
        for brand in brands:
            self._spelled.setdefault(_key(brand), brand)
        self._spelled.pop("", None)
        # An ornate first letter is often not read: "malaya".
        self._cut_off = {
            key[n:]: [key] for key in self._spelled for n in (1, 2) if len(key) - n >= max(_MIN_CUT_OFF, 0.7 * len(key))
        }
        self._misread = Misreadings([key for key in self._spelled if len(key) >= _MIN_MISREAD], n_deletions=1)

    def find(self, lines: Sequence[TextLine]) -> BrandMatch | None:
        """Return the most prominent brand; None if there is none."""
        tallest = max((line.height for line in lines if is_lettered(line)), default=0.0)
        found = [
            BrandMatch(brand, group, weight + _prominence(group, tallest) + _PER_LETTER * min(len(_key(brand)), 10))
            for group in LineGroups([line for line in lines if len(_key(line.text)) > 1])
            for brand, weight in self._matches(group)
            if not _is_ordinary(brand) or (weight == _WHOLE and group[0].height >= _MIN_ORDINARY_HEIGHT * tallest)
        ]
        # Of equally prominent ones the longer: "Doctor Babor" before "Babor".
        return max(found, key=lambda one: (one.weight, len(_key(one.brand))), default=None)

    def _matches(self, group: Sequence[TextLine]) -> Iterator[tuple[str, float]]:
        """Yield the brands in one or more lines, each with the weight of the match."""
        text = " ".join(line.text for line in group)
        key = _key(text)
        if key in self._spelled:
            yield self._spelled[key], _WHOLE
        elif len(key) <= _MAX_MISREAD and not set(tokenise(text)) <= pack_words():
            near = self._misread.without_context(key) or self._cut_off.get(key, [])
            if not near and len(key) >= _MIN_MISREAD and min(line.confidence for line in group) < _MISREAD_CONFIDENCE:
                near = [one for one in self._misread.in_context(key) if edit_distance(one, key) == 1]
            yield from ((self._spelled[one], _MISREAD) for one in near[:1])
        if len(group) == 1:
            yield from self._inside(normalised(text).split())

    def _inside(self, words: Sequence[str]) -> Iterator[tuple[str, float]]:
        for start in range(len(words)):
            for end in range(start + 1, min(start + _MAX_WORDS, len(words)) + 1):
                key = _key(" ".join(words[start:end]))
                if len(key) >= _MIN_INSIDE and end - start < len(words) and key in self._spelled:
                    yield self._spelled[key], _INSIDE if start else _AT_START


def _prominence(group: Sequence[TextLine], tallest: float) -> float:
    """Return 0 to 1 by print size and height on the image: a brand is large, or at the top."""
    size = min(max(line.height for line in group) / max(tallest, 1e-9), 1.0)
    return _SIZE_SHARE * size + (1 - _SIZE_SHARE) * (1 - min(extent(group[0])[1], 1.0))


def _is_ordinary(brand: str) -> bool:
    """Return whether a brand is a single word that packs use otherwise, too."""
    return fold(brand) in pack_words()


def _key(text: str) -> str:
    return normalised(text).replace(" ", "").translate(_CONFUSED)

"""Repair of OCR errors: maps tokens to words of the phrase table, each with a fit between 0 and 1.

    "FACEWASH"            -> face wash       spaces lost
    "S E R U M"           -> serum           letters separated
    "M0ISTUR1SER"         -> moisturiser     digits for letters
    "cleamser"            -> cleanser        one letter misread
    "Feuchtigkeitscreme"  -> ... creme       a compound whose head names the product
    "KPEM", "krem dlja"   -> крем для        Cyrillic as similar Latin letters or transliterated

Words of the table are never changed.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from skincare.text_reading.cyrillic import could_be_cyrillic, is_cyrillic, latin_spellings, skeleton
from skincare.text_reading.misreadings import Misreadings
from skincare.text_reading.phrases import Phrase

_MAX_TOKEN_LETTERS: Final = 40  # longer tokens are no words; bounds the time for hostile text
# Minimum number of letters for each kind of repair; shorter tokens match too many words.
_MIN_LETTERS_CONFUSED: Final = 3
_MIN_LETTERS_HEAD: Final = 5
_MIN_LETTERS_COMPACT: Final = 7
_MIN_LETTERS_COMPACT_MISREAD: Final = 9

# Fit of a repaired word, relative to a word that was read correctly.
_JOINED_FACTOR: Final = 0.95
_COMPOUND_FACTOR: Final = 0.8
_MISREAD_FACTOR: Final = 0.75
_LOOK_ALIKE_FACTOR: Final = 0.85

_LETTERS_FIRST: Final = re.compile(r"[a-z]{4,}(?=[0-9])")
# Digits and letters of the outline of another letter.
_OUTLINES: Final = str.maketrans("0135689i", "olesbbgl")


@dataclass(frozen=True)
class Token:
    """A repaired word. `fit`: 1 if it was read correctly, less if it was repaired; `line`: its line number.

    others: further candidates, valid only if the neighbouring words complete a phrase ("facial foal" -> foam).
    """

    text: str
    fit: float
    line: int
    others: tuple[str, ...] = ()


class OcrRepair:
    """Repairs tokens with the words of a phrase table as vocabulary."""

    def __init__(self, phrases: Sequence[Phrase]) -> None:
        self._words = {word for phrase in phrases for word in phrase.tokens}
        english = [phrase for phrase in phrases if phrase.language == "en"]
        self._english = {word for phrase in english for word in phrase.tokens if len(word) >= 3}
        heads = (phrase for phrase in phrases if phrase.strength >= 2 and len(phrase.tokens) == 1)
        self._heads = {phrase.tokens[0] for phrase in heads if len(phrase.tokens[0]) >= _MIN_LETTERS_HEAD}
        latin = [phrase for phrase in phrases if len(phrase.tokens) > 1 and phrase.tokens[0].isascii()]
        heads_last = sorted(self._english, key=lambda word: (word in self._heads, word))
        self._confused = {_outline(word): word for word in heads_last}
        self._compact = {"".join(one.tokens): one.tokens for one in latin}
        plain = sorted(word for word in self._words if word.isascii() and word.isalpha())
        self._outlined = {_outline(word): word for word in sorted(plain, key=self._heads.__contains__)}
        self._misreadings = Misreadings(self._outlined)
        self._misread_compact = Misreadings(self._compact, n_deletions=1)
        self._transliterated = latin_spellings(word for word in self._words if is_cyrillic(word))
        self._misread_transliterated = Misreadings(self._transliterated, is_any_letter=True)
        self._repaired = lru_cache(maxsize=20_000)(self._repair)
        self._others = lru_cache(maxsize=20_000)(self._guess)

    def tokens(self, lines: Sequence[Sequence[str]]) -> list[Token]:
        """Return the repaired tokens of all lines, in order."""
        found: list[Token] = []
        for number, line in enumerate(lines):
            for word in self._joined(line):
                parts = self._repaired(word)
                others = self._others(word) if parts == ((word, 1.0),) else ()
                found += [Token(part, fit, number, others) for part, fit in parts]
        return found

    def _joined(self, line: Sequence[str]) -> Iterator[str]:
        """Yield the line's words; join sequences of single letters ("s e r u m") and split words ("ser um")."""
        line = [word[:_MAX_TOKEN_LETTERS] for word in line]
        i = 0
        while i < len(line):
            end = i
            while end < len(line) and len(line[end]) == 1 and line[end].isascii():
                end += 1
            if end - i >= 3:
                yield "".join(line[i:end])[:_MAX_TOKEN_LETTERS]
                i = end
                continue
            pair = line[i : i + 2]
            if len(pair) == 2 and "".join(pair) in self._heads and not self._words.issuperset(pair):
                yield "".join(pair)
                i += 2
                continue
            yield line[i]
            i += 1

    def _repair(self, word: str) -> tuple[tuple[str, float], ...]:
        known = self._known(word)
        if known or not word.isascii() or word.isdigit() or len(word) < _MIN_LETTERS_CONFUSED:
            return ((known or word, 1.0),)
        if confused := self._confused.get(_outline(word)):
            return ((confused, _JOINED_FACTOR),)
        if spelt := self._cyrillic(word):
            return spelt
        if not word.isalpha():
            return self._split_off_digits(word)
        return self._spaced(word) or self._misread(word) or self._head(word) or ((word, 1.0),)

    def _known(self, word: str) -> str:
        """Return the word or its singular if the table contains it, else an empty string."""
        for form in (word, word.removesuffix("s"), word.removesuffix("es")):
            if form in self._words:
                return form
        return ""

    def _split_off_digits(self, word: str) -> tuple[tuple[str, float], ...]:
        """Repair the letters before the first digit ("serum30ml" -> serum)."""
        letters = _LETTERS_FIRST.match(word)
        return self._repair(letters.group()) if letters else ((word, 1.0),)

    def _cyrillic(self, word: str) -> tuple[tuple[str, float], ...]:
        if spelt := self._transliterated.get(skeleton(word)) or self._transliterated.get(word):
            return ((spelt, _LOOK_ALIKE_FACTOR),)
        near = self._misread_transliterated.without_context(skeleton(word)) if could_be_cyrillic(word) else []
        return ((self._transliterated[near[0]], _MISREAD_FACTOR),) if near else ()

    def _spaced(self, word: str) -> tuple[tuple[str, float], ...]:
        """Return the words of a token without spaces ("facewash" -> face, wash)."""
        if len(word) < _MIN_LETTERS_COMPACT:
            return ()
        if word in self._compact:
            return tuple((part, _JOINED_FACTOR) for part in self._compact[word])
        if parts := _segment(word, self._english):
            return tuple((part, _JOINED_FACTOR) for part in parts)
        near = self._misread_compact.without_context(word) if len(word) >= _MIN_LETTERS_COMPACT_MISREAD else []
        return tuple((part, _MISREAD_FACTOR) for part in self._compact[near[0]]) if near else ()

    def _misread(self, word: str) -> tuple[tuple[str, float], ...]:
        """Return the closest word of the table, preferring words that name a category."""
        near = [self._outlined[one] for one in self._misreadings.without_context(_outline(word))]
        best = next((one for one in near if one in self._heads), near[0] if near else None)
        return ((best, _MISREAD_FACTOR),) if best else ()

    def _guess(self, word: str) -> tuple[str, ...]:
        """Return candidates that are accepted only in context, see `Token.others`."""
        is_word = word.isascii() and word.isalpha() and word not in self._words
        near = self._misreadings.in_context(_outline(word)) if is_word else []
        return tuple(self._outlined[one] for one in near)

    def _head(self, word: str) -> tuple[tuple[str, float], ...]:
        """Split a token at a head noun: at its end ("feuchtigkeitscreme" -> creme) or at its start."""
        for length in range(len(word) - 3, _MIN_LETTERS_HEAD - 1, -1):
            if word[-length:] in self._heads:
                return ((word[:-length], 1.0), (word[-length:], _COMPOUND_FACTOR))
            if word[:length] in self._heads:
                return ((word[:length], _COMPOUND_FACTOR), (word[length:], 1.0))
        return ()


def _outline(word: str) -> str:
    """Return the common form of words with characters of the same outline ("oi1", "0il" and "oil")."""
    return word.replace("rn", "m").replace("vv", "w").translate(_OUTLINES)


def _segment(word: str, vocabulary: set[str]) -> tuple[str, ...]:
    """Return the shortest segmentation of `word` into words of the vocabulary; empty if there is none."""
    best: list[tuple[str, ...] | None] = [(), *[None] * len(word)]
    for end in range(3, len(word) + 1):
        for start in range(end - 2):
            before, part = best[start], word[start:end]
            if (
                before is not None
                and part in vocabulary
                and (best[end] is None or len(before) + 1 < len(best[end] or ()))
            ):
                best[end] = (*before, part)
    return best[-1] or ()

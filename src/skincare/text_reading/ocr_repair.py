"""What OCR does to words, undone: tokens in, tokens of the phrase table out, each with how well it fits.

    "FACEWASH"            -> face wash       spaces lost
    "S E R U M"           -> serum           letters torn apart
    "M0ISTUR1SER"         -> moisturiser     digits for letters
    "cleamser"            -> cleanser        one letter misread
    "Feuchtigkeitscreme"  -> ... creme       a compound whose head names the product
    "KPEM", "krem dlja"   -> крем для        Cyrillic read as Latin look-alikes or spelt in Latin

A word that the table knows stays as it is, so that nothing is repaired that was read well.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from skincare.text_reading.cyrillic import is_cyrillic, latin_spellings, looks_cyrillic, skeleton
from skincare.text_reading.misreadings import Misreadings
from skincare.text_reading.phrases import Phrase

_LONGEST_TOKEN: Final = 40  # letters; longer ones are no words, and hostile text must not cost time
# Letters from which on a word is repaired in a way; shorter ones are too easily another word.
_SHORTEST_CONFUSED: Final = 3
_SHORTEST_HEAD: Final = 5
_SHORTEST_COMPACT: Final = 7
_SHORTEST_COMPACT_MISREAD: Final = 9

# How much a repaired word counts beside one that was read well.
_JOINED: Final = 0.95
_COMPOUND: Final = 0.8
_MISREAD: Final = 0.75
_LOOK_ALIKE: Final = 0.85

_LETTERS_FIRST: Final = re.compile(r"[a-z]{4,}(?=[0-9])")
# Digits and letters of the outline of another letter.
_OUTLINES: Final = str.maketrans("0135689i", "olesbbgl")


@dataclass(frozen=True)
class Token:
    """A word as the table spells it; `fit`: 1 where it was read so, less where it was repaired; `line`: its line.

    others: words of the table that it may be too, if the words beside it make a phrase of them ("facial foal").
    """

    text: str
    fit: float
    line: int
    others: tuple[str, ...] = ()


class OcrRepair:
    """Repairs tokens towards the words of a phrase table."""

    def __init__(self, phrases: Sequence[Phrase]) -> None:
        self._words = {word for phrase in phrases for word in phrase.tokens}
        english = [phrase for phrase in phrases if phrase.language == "en"]
        self._english = {word for phrase in english for word in phrase.tokens if len(word) >= 3}
        heads = (phrase for phrase in phrases if phrase.strength >= 2 and len(phrase.tokens) == 1)
        self._heads = {phrase.tokens[0] for phrase in heads if len(phrase.tokens[0]) >= _SHORTEST_HEAD}
        latin = [phrase for phrase in phrases if len(phrase.tokens) > 1 and phrase.tokens[0].isascii()]
        heads_last = sorted(self._english, key=lambda word: (word in self._heads, word))
        self._confused = {_outline(word): word for word in heads_last}
        self._compact = {"".join(one.tokens): one.tokens for one in latin}
        plain = sorted(word for word in self._words if word.isascii() and word.isalpha())
        self._outlined = {_outline(word): word for word in sorted(plain, key=self._heads.__contains__)}
        self._misreadings = Misreadings(self._outlined)
        self._misread_compact = Misreadings(self._compact, n_taken=1)
        self._spelt = latin_spellings(word for word in self._words if is_cyrillic(word))
        self._misread_spelt = Misreadings(self._spelt, is_any_letter=True)
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
        """Yield the line's words, single letters in a row put together ("s e r u m") and torn words ("ser um")."""
        line = [word[:_LONGEST_TOKEN] for word in line]
        i = 0
        while i < len(line):
            end = i
            while end < len(line) and len(line[end]) == 1 and line[end].isascii():
                end += 1
            if end - i >= 3:
                yield "".join(line[i:end])[:_LONGEST_TOKEN]
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
        if known or not word.isascii() or word.isdigit() or len(word) < _SHORTEST_CONFUSED:
            return ((known or word, 1.0),)
        if confused := self._confused.get(_outline(word)):
            return ((confused, _JOINED),)
        if spelt := self._cyrillic(word):
            return spelt
        if not word.isalpha():
            return self._split_off_digits(word)
        return self._spaced(word) or self._misread(word) or self._head(word) or ((word, 1.0),)

    def _known(self, word: str) -> str:
        """Return the word, or its singular, where the table has it; else empty."""
        for form in (word, word.removesuffix("s"), word.removesuffix("es")):
            if form in self._words:
                return form
        return ""

    def _split_off_digits(self, word: str) -> tuple[tuple[str, float], ...]:
        """Return "serum30ml" as serum and the rest."""
        letters = _LETTERS_FIRST.match(word)
        return self._repair(letters.group()) if letters else ((word, 1.0),)

    def _cyrillic(self, word: str) -> tuple[tuple[str, float], ...]:
        if spelt := self._spelt.get(skeleton(word)) or self._spelt.get(word):
            return ((spelt, _LOOK_ALIKE),)
        near = self._misread_spelt.alone(skeleton(word)) if looks_cyrillic(word) else []
        return ((self._spelt[near[0]], _MISREAD),) if near else ()

    def _spaced(self, word: str) -> tuple[tuple[str, float], ...]:
        """Return the words of a token that lost its spaces."""
        if len(word) < _SHORTEST_COMPACT:
            return ()
        if word in self._compact:
            return tuple((part, _JOINED) for part in self._compact[word])
        if parts := _segment(word, self._english):
            return tuple((part, _JOINED) for part in parts)
        near = self._misread_compact.alone(word) if len(word) >= _SHORTEST_COMPACT_MISREAD else []
        return tuple((part, _MISREAD) for part in self._compact[near[0]]) if near else ()

    def _misread(self, word: str) -> tuple[tuple[str, float], ...]:
        """Return the one word that was misread as `word`, a category's word rather than another."""
        near = [self._outlined[one] for one in self._misreadings.alone(_outline(word))]
        best = next((one for one in near if one in self._heads), near[0] if near else None)
        return ((best, _MISREAD),) if best else ()

    def _guess(self, word: str) -> tuple[str, ...]:
        """Return the words that may have been read as `word`, too far from it to stand for it alone."""
        is_word = word.isascii() and word.isalpha() and word not in self._words
        near = self._misreadings.beside_others(_outline(word)) if is_word else []
        return tuple(self._outlined[one] for one in near)

    def _head(self, word: str) -> tuple[tuple[str, float], ...]:
        """Return the last part of a compound that names the product, or the first part of what lost its spaces."""
        for length in range(len(word) - 3, _SHORTEST_HEAD - 1, -1):
            if word[-length:] in self._heads:
                return ((word[:-length], 1.0), (word[-length:], _COMPOUND))
            if word[:length] in self._heads:
                return ((word[:length], _COMPOUND), (word[length:], 1.0))
        return ()


def _outline(word: str) -> str:
    """Return one spelling for words that differ in digits and letters of the same outline: "oi1", "0il" and "oil"."""
    return word.replace("rn", "m").replace("vv", "w").translate(_OUTLINES)


def _segment(word: str, vocabulary: set[str]) -> tuple[str, ...]:
    """Return the fewest words of the vocabulary that make up `word`; empty where none do."""
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

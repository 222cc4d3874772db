"""Normalisation of generated text before phrases are searched: lower case, no accents, with sentence positions."""

import re
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_END_TOKEN: Final = re.compile(r"<\|[a-z_]{1,30}\|>|</?s>|<eos>|<(?:start|end)_of_turn>", re.IGNORECASE)
_SPELLINGS: Final = {"creme": "cream", "moisturizing": "moisturising", "make up remover": "makeup remover"}
_SPELLING: Final = re.compile(r"(?<![a-z0-9])(?:" + "|".join(_SPELLINGS) + r")(?![a-z0-9])")
# A full stop after a digit is part of a list number or a decimal number.
_SENTENCE_END: Final = re.compile(r"(?:(?<![0-9])\.|[!?;。])[\"')\]]*(?: |$)")
# Letters without a Unicode decomposition.
_LETTERS: Final = {"đ": "d", "ø": "o", "ł": "l", "ı": "i", "œ": "oe", "æ": "ae"}


@dataclass(frozen=True)
class Passage:
    """Plain text with the start positions of its lines and sentences; every line starts a sentence."""

    text: str
    lines: tuple[int, ...]
    sentences: tuple[int, ...]

    @classmethod
    def of(cls, text: str) -> "Passage":
        """Return the plain form of generated text."""
        lines = [line for one in _END_TOKEN.sub(" ", text).splitlines() if (line := plain_text(one))]
        starts, position = [], 0
        for line in lines:
            starts.append(position)
            position += len(line) + 1
        joined = " ".join(lines)
        ends = {match.end() for match in _SENTENCE_END.finditer(joined)}
        return cls(joined, tuple(starts), tuple(sorted({0, *starts, *ends})))

    def sentence_of(self, position: int) -> int:
        """Return the index of the sentence that contains a position."""
        return bisect_right(self.sentences, position) - 1

    def sentence_start(self, position: int) -> int:
        """Return the start of the sentence that contains a position."""
        return self.sentences[self.sentence_of(position)]

    def has_line_break(self, start: int, end: int) -> bool:
        """Return whether a line starts after `start` and up to `end`."""
        return bisect_right(self.lines, end) > bisect_right(self.lines, start)


def plain_text(text: str) -> str:
    """Return lower-case text without accents, markdown marks and line breaks, one space between words.

    "**Bath**-Salts" -> "bath salts", "Crème" -> "cream"
    """
    spaced = " ".join("".join(map(_fold, text)).split())
    return _SPELLING.sub(lambda match: _SPELLINGS[match.group()], spaced)


@lru_cache(maxsize=4096)
def _fold(character: str) -> str:
    # Character by character: sorting a long run of accents, as a whole text would need, takes quadratic time.
    return "".join(map(_replace, unicodedata.normalize("NFKD", character).casefold()))


def _replace(character: str) -> str:
    if character in "‘’ʼ´":
        return "'"
    if character in "“”„":
        return '"'
    if character == "&":
        return " and "
    kind = unicodedata.category(character)
    if kind in ("Mn", "Cf"):
        return ""  # accents, soft hyphens and zero-width marks occur inside words
    # Dashes, underscores, breaks and markdown marks may separate the words of one phrase ("**Bath**-Salts").
    if kind in ("Pd", "Pc", "Zs", "Zl", "Zp", "Cc") or character in "*`~#\\":
        return " "
    return _LETTERS.get(character, character)

"""The plain form of generated text, in which phrases are found: text in, folded text with its sentences out."""

import re
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_END_TOKEN: Final = re.compile(r"<\|[a-z_]{1,30}\|>|</?s>|<eos>|<(?:start|end)_of_turn>", re.IGNORECASE)
_SPELLINGS: Final = {"creme": "cream", "moisturizing": "moisturising", "make up remover": "makeup remover"}
_SPELLING: Final = re.compile(r"(?<![a-z0-9])(?:" + "|".join(_SPELLINGS) + r")(?![a-z0-9])")
# A full stop after a digit numbers a list, or is a decimal point.
_SENTENCE_END: Final = re.compile(r"(?:(?<![0-9])\.|[!?;。])[\"')\]]*(?: |$)")
# Letters that Unicode does not decompose.
_LETTERS: Final = {"đ": "d", "ø": "o", "ł": "l", "ı": "i", "œ": "oe", "æ": "ae"}


@dataclass(frozen=True)
class Passage:
    """Plain text, the places where its lines begin, and those where its sentences begin (a line begins one too)."""

    text: str
    lines: tuple[int, ...]
    sentences: tuple[int, ...]

    @classmethod
    def of(cls, text: str) -> "Passage":
        """Return the plain form of generated text."""
        lines = [line for one in _END_TOKEN.sub(" ", text).splitlines() if (line := plain_text(one))]
        starts, place = [], 0
        for line in lines:
            starts.append(place)
            place += len(line) + 1
        joined = " ".join(lines)
        ends = {match.end() for match in _SENTENCE_END.finditer(joined)}
        return cls(joined, tuple(starts), tuple(sorted({0, *starts, *ends})))

    def sentence_of(self, place: int) -> int:
        """Return the number of the sentence that a place is in."""
        return bisect_right(self.sentences, place) - 1

    def sentence_start(self, place: int) -> int:
        """Return where the sentence of a place begins."""
        return self.sentences[self.sentence_of(place)]

    def has_line_break(self, start: int, end: int) -> bool:
        """Return whether a line begins after `start` and not after `end`."""
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
        return ""  # accents, soft hyphens and zero-width marks stand inside words
    # Dashes, underscores, breaks and markdown marks may stand between the words of one phrase ("**Bath**-Salts").
    if kind in ("Pd", "Pc", "Zs", "Zl", "Zp", "Cc") or character in "*`~#\\":
        return " "
    return _LETTERS.get(character, character)

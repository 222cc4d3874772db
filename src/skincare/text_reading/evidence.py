"""The category words on a pack and how much each counts: lines in, evidence out; pure functions.

Phrases are found leftmost and longest over all lines, so that one may go on in the next line ("FACE / WASH") and a
consumed one ("oil control") takes its words away. How much a phrase counts depends on its strength, on how well it was
read, on the size of its print beside the largest, on the length of its line (a sentence says how to use it), and on
the words around it ("with argan oil", "before your serum" name no product). Where two categories meet in one line, the
head decides: the last in English and German ("cleansing clay mask"), the first in French or Vietnamese.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from skincare.labels import HEAD_FIRST, Labels
from skincare.text_reading.ocr_repair import OcrRepair, Token
from skincare.text_reading.phrases import GAP, NUMBER, Phrase, tokenise

_WEIGHTS: Final = {0: 0.0, 1: 0.6, 2: 2.0, 3: 4.0}
_MOST_BREAKS: Final = 2  # a phrase may go on in the next two lines
_GAP_WORDS: Final = 3
_GUESSED: Final = 0.6
_ACROSS_LINES: Final = 0.9
_NOT_THE_HEAD: Final = 0.4
_INGREDIENT: Final = 0.2
_USAGE: Final = 0.25
_AGAIN: Final = 0.35  # of a further phrase of the same category, and so on for each
_PRINT_POWER: Final = 0.5
_LETTERS_A_WORD: Final = 3
_LONG_LINES: Final = ((4, 1.0), (6, 0.85), (9, 0.6), (math.inf, 0.4))

_INGREDIENT_WORDS: Final = frozenset(
    (
        *("with", "of", "from", "contains", "containing", "infused", "enriched", "plus", "avec", "au", "aux"),
        *("de", "con", "com", "mit", "z", "ze", "met", "ile", "с", "voi", "chua"),
    )
)
_USAGE_WORDS: Final = frozenset(
    (
        *("before", "after", "your", "apply", "use", "using", "under", "favourite", "favorite", "than", "then"),
        *("without", "not", "no", "like", "followed", "remove", "rinse", "replace", "any", "or", "sans"),
        *("apres", "avant", "ohne", "nach", "vor", "sin", "senza", "bez", "po", "без", "после", "перед", "sau"),
        "truoc",
    )
)
_FOR_WORDS: Final = frozenset(["for", "pour", "fur", "per", "para", "cho", "do", "dla", "для", "with"])
_REACH: Final = 3  # words between "with" and the ingredient


@dataclass(frozen=True)
class Evidence:
    """One phrase found on the pack: what it names, how much it counts, and where it stands."""

    label: str
    text: str
    weight: float
    line: int


class Match(NamedTuple):
    """A phrase at some tokens, and how well it fits them."""

    start: int
    end: int
    fit: float
    phrase: Phrase


class EvidenceFinder:
    """Finds the phrases of a table."""

    def __init__(self, phrases: Sequence[Phrase]) -> None:
        self._repair = OcrRepair(phrases)
        # "body butter with oil" is no body oil.
        heads = {one.tokens[0] for one in phrases if one.strength >= 2 and len(one.tokens) == 1}
        self._not_skipped = heads | _INGREDIENT_WORDS | _USAGE_WORDS | _FOR_WORDS
        self._trie: dict[str, Any] = {}
        for phrase in phrases:
            for words in product(*phrase.words):
                node = self._trie
                for word in words:
                    node = node.setdefault(word, {})
                node.setdefault("", phrase)

    def find(self, lines: Sequence[str], heights: Sequence[float] | None = None) -> list[Evidence]:
        """Return the evidence in reading order; heights: of the lines' print, in any unit, all equal if left out."""
        words = [tokenise(line) for line in lines]
        tokens = self._repair.tokens(words)
        lengths = _words_per_line(tokens, len(lines))
        prints = _relative_heights(heights, len(lines))
        matches = [match for match in self._matches(tokens) if match.phrase.label is not None]
        found = []
        for place, (start, end, fit, phrase) in enumerate(matches):
            weight = _WEIGHTS[phrase.strength] * fit * min(token.fit for token in tokens[start:end])
            weight *= _line_factor(lengths[tokens[start].line]) * prints[tokens[start].line]
            if tokens[start].line != tokens[end - 1].line:
                weight *= _ACROSS_LINES
            weight *= _context_factor(tokens, start)
            if not _is_head(matches, place, tokens):
                weight *= _NOT_THE_HEAD
            found.append(Evidence(phrase.label or "", phrase.text, weight, tokens[start].line))
        return found

    def _matches(self, tokens: Sequence[Token]) -> list[Match]:
        """Return the matches leftmost and longest; none overlaps another."""
        found = []
        start = 0
        while start < len(tokens):
            best = max(self._ends(tokens, start, start, self._trie, 1.0), key=lambda one: one[1:3], default=None)
            if best is None:
                start += 1
            else:
                found.append(best)
                start = best.end
        return found

    def _ends(
        self, tokens: Sequence[Token], start: int, place: int, node: dict[str, Any], fit: float
    ) -> Iterator[Match]:
        """Yield all phrases that begin at `start` and have come down to `node` before `place`."""
        if "" in node and (fit == 1.0 or place > start + 1):
            yield Match(start, place, fit, node[""])
        if place == len(tokens) or tokens[place].line - tokens[start].line > _MOST_BREAKS:
            return
        token = tokens[place]
        if token.text in node:
            yield from self._ends(tokens, start, place + 1, node[token.text], fit)
        if NUMBER in node and token.text.isdigit():
            yield from self._ends(tokens, start, place + 1, node[NUMBER], fit)
        # One guessed word a phrase.
        for other in token.others if fit == 1.0 else ():
            if other in node:
                yield from self._ends(tokens, start, place + 1, node[other], _GUESSED)
        for after in range(place + 1, place + _GAP_WORDS + 1) if GAP in node else ():
            skipped = tokens[after - 1]
            if skipped.line != tokens[start].line or skipped.text in self._not_skipped or after == len(tokens):
                break
            yield from self._ends(tokens, start, after, node[GAP], fit)


def scores(evidence: Sequence[Evidence], labels: Labels) -> npt.NDArray[np.float64]:
    """Return (n_labels,) how much speaks for each label, in their order; each further phrase counts less."""
    total = np.zeros(len(labels))
    for i, label in enumerate(labels.names):
        weights = sorted((one.weight for one in evidence if one.label == label), reverse=True)
        total[i] = sum(weight * _AGAIN**n for n, weight in enumerate(weights[:20]))
    return total


def _relative_heights(heights: Sequence[float] | None, n_lines: int) -> npt.NDArray[np.float64]:
    """Return (lines,) factors, 1 for the largest print."""
    if heights is None or not n_lines:
        return np.ones(n_lines)
    sizes = np.asarray(heights, dtype=np.float64)
    return (sizes / max(float(sizes.max()), 1e-9)) ** _PRINT_POWER


def _words_per_line(tokens: Sequence[Token], n_lines: int) -> npt.NDArray[np.float64]:
    """Return (lines,) numbers of words; of scripts without spaces some letters make one."""
    sizes = [1.0 if len(token.text) > 1 or token.text.isascii() else 1 / _LETTERS_A_WORD for token in tokens]
    lines = [token.line for token in tokens]
    return np.bincount(lines, weights=np.array(sizes), minlength=n_lines).astype(np.float64)


def _line_factor(n_words: float) -> float:
    return next(factor for longest, factor in _LONG_LINES if n_words <= longest)


def _context_factor(tokens: Sequence[Token], start: int) -> float:
    line = tokens[start].line
    before = [token.text for token in tokens[max(0, start - _REACH) : start] if token.line == line]
    if any(word in _USAGE_WORDS for word in before[-2:]):
        return _USAGE
    return _INGREDIENT if any(word in _INGREDIENT_WORDS for word in before) else 1.0


def _is_head(matches: Sequence[Match], place: int, tokens: Sequence[Token]) -> bool:
    """Tell whether no neighbour of another category in the same line is the head instead."""
    start, end, _, phrase = matches[place]
    before, after = matches[place - 1] if place else None, matches[place + 1] if place + 1 < len(matches) else None
    if before and _competes(before, matches[place], tokens):
        between = {token.text for token in tokens[before.end : start]}
        if between & _FOR_WORDS or before.phrase.language in HEAD_FIRST:
            return False
    if after and _competes(matches[place], after, tokens):
        between = {token.text for token in tokens[end : after.start]}
        return bool(between & _FOR_WORDS) or phrase.language in HEAD_FIRST
    return True


def _competes(one: Match, other: Match, tokens: Sequence[Token]) -> bool:
    is_near = other.start - one.end <= 1 and tokens[one.start].line == tokens[other.start].line
    return is_near and min(one.phrase.strength, other.phrase.strength) >= 2 and one.phrase.label != other.phrase.label

"""Find and weight the category phrases on a pack: lines of text in, `Evidence` out.

Matching is leftmost-longest over all lines, so a phrase may continue in the next line ("FACE / WASH"), and a phrase
without a label ("oil control") consumes its words. The weight of a match depends on the strength of its phrase, the
quality of the OCR match, the print size relative to the largest print, the length of the line (long lines are usage
instructions) and the words around it ("with argan oil" and "before your serum" name no product). Where two categories
meet in one line, the head noun decides: the last one in English and German ("cleansing clay mask"), the first one in
French or Vietnamese.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from skincare.labels import HEAD_FIRST, Labels
from skincare.text_reading.ocr_repair import OcrRepair, Token
from skincare.text_reading.phrases import GAP, NUMBER, Phrase, phrases_of, tokenise

_WEIGHTS: Final = {0: 0.0, 1: 0.6, 2: 2.0, 3: 4.0}
_MAX_LINE_BREAKS: Final = 2  # a phrase may continue in the next two lines
_GAP_WORDS: Final = 3
_GUESSED_FACTOR: Final = 0.6
_ACROSS_LINES_FACTOR: Final = 0.9
_NON_HEAD_FACTOR: Final = 0.4
_INGREDIENT_FACTOR: Final = 0.2
_USAGE_FACTOR: Final = 0.25
_REPEAT_FACTOR: Final = 0.35  # of the second phrase of a category; squared for the third, and so on
_PRINT_SIZE_EXPONENT: Final = 0.5
_LETTERS_PER_WORD: Final = 3
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
_INGREDIENT_REACH: Final = 3  # words between "with" and the ingredient, at most


@dataclass(frozen=True)
class Evidence:
    """One matched phrase: its label, text, weight, line number and language."""

    label: str
    text: str
    weight: float
    line: int
    language: str


class Match(NamedTuple):
    """A phrase that matches the tokens from `start` to `end`; `fit` is 1 for an exact match."""

    start: int
    end: int
    fit: float
    phrase: Phrase


class EvidenceFinder:
    """Matches the phrases of a table against lines of text."""

    def __init__(self, phrases: Sequence[Phrase]) -> None:
        self._repair = OcrRepair(phrases)
        # A gap does not span these: "body butter with oil" is no body oil.
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
        """Return the evidence in reading order.

        heights: print height of each line, in any unit; equal heights if left out.
        """
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
                weight *= _ACROSS_LINES_FACTOR
            weight *= _context_factor(tokens, start)
            if not _is_head(matches, place, tokens):
                weight *= _NON_HEAD_FACTOR
            found.append(Evidence(phrase.label or "", phrase.text, weight, tokens[start].line, phrase.language))
        return found

    def _matches(self, tokens: Sequence[Token]) -> list[Match]:
        """Return the leftmost-longest matches, which do not overlap."""
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
        """Yield the matches that begin at `start` and pass through trie node `node` at token `place`."""
        if "" in node and (fit == 1.0 or place > start + 1):
            yield Match(start, place, fit, node[""])
        if place == len(tokens) or tokens[place].line - tokens[start].line > _MAX_LINE_BREAKS:
            return
        token = tokens[place]
        if token.text in node:
            yield from self._ends(tokens, start, place + 1, node[token.text], fit)
        if NUMBER in node and token.text.isdigit():
            yield from self._ends(tokens, start, place + 1, node[NUMBER], fit)
        # At most one guessed word per phrase.
        for other in token.others if fit == 1.0 else ():
            if other in node:
                yield from self._ends(tokens, start, place + 1, node[other], _GUESSED_FACTOR)
        for after in range(place + 1, place + _GAP_WORDS + 1) if GAP in node else ():
            skipped = tokens[after - 1]
            if skipped.line != tokens[start].line or skipped.text in self._not_skipped or after == len(tokens):
                break
            yield from self._ends(tokens, start, after, node[GAP], fit)


@lru_cache(maxsize=4)
def finder_of(labels: Labels) -> EvidenceFinder:
    """Return the finder of the labels' phrases; building it takes a few tenths of a second."""
    return EvidenceFinder(phrases_of(labels))


def scores(evidence: Sequence[Evidence], labels: Labels) -> npt.NDArray[np.float64]:
    """Return (n_labels,) summed weights in the order of the labels; each further phrase of a label counts less."""
    total = np.zeros(len(labels))
    for i, label in enumerate(labels.names):
        weights = sorted((one.weight for one in evidence if one.label == label), reverse=True)
        total[i] = sum(weight * _REPEAT_FACTOR**n for n, weight in enumerate(weights[:20]))
    return total


def _relative_heights(heights: Sequence[float] | None, n_lines: int) -> npt.NDArray[np.float64]:
    """Return (n_lines,) weight factors, 1 for the largest print."""
    if heights is None or not n_lines:
        return np.ones(n_lines)
    sizes = np.asarray(heights, dtype=np.float64)
    return (sizes / max(float(sizes.max()), 1e-9)) ** _PRINT_SIZE_EXPONENT


def _words_per_line(tokens: Sequence[Token], n_lines: int) -> npt.NDArray[np.float64]:
    """Return (n_lines,) word counts; in scripts without spaces `_LETTERS_PER_WORD` letters count as a word."""
    sizes = [1.0 if len(token.text) > 1 or token.text.isascii() else 1 / _LETTERS_PER_WORD for token in tokens]
    lines = [token.line for token in tokens]
    return np.bincount(lines, weights=np.array(sizes), minlength=n_lines).astype(np.float64)


def _line_factor(n_words: float) -> float:
    return next(factor for longest, factor in _LONG_LINES if n_words <= longest)


def _context_factor(tokens: Sequence[Token], start: int) -> float:
    line = tokens[start].line
    before = [token.text for token in tokens[max(0, start - _INGREDIENT_REACH) : start] if token.line == line]
    if any(word in _USAGE_WORDS for word in before[-2:]):
        return _USAGE_FACTOR
    return _INGREDIENT_FACTOR if any(word in _INGREDIENT_WORDS for word in before) else 1.0


def _is_head(matches: Sequence[Match], place: int, tokens: Sequence[Token]) -> bool:
    """Return whether no adjacent match of another category in the same line is the head noun."""
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

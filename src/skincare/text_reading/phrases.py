"""Phrases that name a product's category on a pack, in sixteen languages: the table `phrases.csv`.

A row contains the phrases of one category, language and strength, separated by `|`:

    3  names the product by itself ("face wash", "sữa rửa mặt")
    2  usually names it ("cream", "lotion")
    1  is weak evidence ("spf 15", "niacinamide"), or a form that several categories share ("wash")
    0  has no label and consumes its words, so that they match nothing else ("oil control", "after toner")

In a phrase `*` matches one to three words ("eye * cream") and `#` a number ("pack of #").

Text and table are normalised alike (`fold`): lower case, no accents, British spelling. Tokens are words of Latin or
Cyrillic letters, and single characters of scripts that are written without spaces.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from skincare.errors import StageError
from skincare.labels import Labels, PackPhrase

GAP: Final = "*"
NUMBER: Final = "#"

# Letters that Unicode does not decompose.
_LETTERS: Final = str.maketrans(
    {
        "đ": "d",
        "ß": "ss",
        "ø": "o",
        "ł": "l",
        "ı": "i",
        "œ": "oe",
        "æ": "ae",
        "&": " and ",
        "’": "'",
        "ʼ": "'",
        "´": "'",
    }
)
# Vietnamese letters with a single mark that the OCR model lacks, too.
_DOTTED: Final = frozenset("ạảẹẻẽịỉĩọỏụủũỵỷỹ")
_SPELLINGS: Final = (
    (re.compile(r"(?<=moisturi)z(?=[aei])"), "s"),
    (re.compile(r"\bmake[ -]up\b"), "makeup"),
    (re.compile(r"\banti-? ?ag(?:e?ing|e)\b"), "antiageing"),
    (re.compile(r"\bcolor"), "colour"),
)
# Between a lower-case letter and the capital of the next word.
_LOST_SPACE: Final = re.compile(r"(?<=[a-zß-ÿ]{2})(?=[A-ZÀ-Þ][a-zß-ÿ]{2})")
_TOKEN: Final = re.compile(r"[a-z0-9]+|[\u0400-\u04ff]+|[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]")


@dataclass(frozen=True)
class Phrase:
    """One phrase of the table, as tokens; `label` is None for strength 0."""

    label: str | None
    language: str
    strength: int
    text: str
    # One tuple per word: its spelling and, if OCR drops letters of it, the remaining form.
    words: tuple[tuple[str, ...], ...]

    @property
    def tokens(self) -> tuple[str, ...]:
        """Return the spelling of each word."""
        return tuple(forms[0] for forms in self.words)


def fold(text: str) -> str:
    """Return lower-case text without accents, in British spelling.

    "Crème MOISTURIZING, Đất Sét" -> "creme moisturising, dat set"
    """
    lowered = unicodedata.normalize("NFKD", text.casefold()).translate(_LETTERS)
    plain = "".join(letter for letter in lowered if unicodedata.category(letter) not in ("Mn", "Cf"))
    # NFKD also decomposes Korean syllables.
    plain = unicodedata.normalize("NFC", plain)
    for pattern, spelling in _SPELLINGS:
        plain = pattern.sub(spelling, plain)
    return plain


def drop_stacked_marks(text: str) -> str:
    """Return Vietnamese text without the letters that the OCR model lacks: those with two marks.

    "tẩy tế bào chết" -> "ty t bào cht", "dưỡng ẩm" -> "dưng m"
    """
    letters = unicodedata.normalize("NFC", text)
    return "".join(one for one in letters if len(unicodedata.normalize("NFD", one)) < 3 and one not in _DOTTED)


def tokenise(text: str) -> list[str]:
    """Return the tokens of a text.

    "Skin1004 クリーム" -> ["skin1004", "ク", "リ", "ー", "ム"], "LightBodyWash" -> ["light", "body", "wash"]
    """
    return _TOKEN.findall(fold(_LOST_SPACE.sub(" ", text)))


@lru_cache(maxsize=4)
def phrases_of(labels: Labels) -> tuple[Phrase, ...]:
    """Return the phrases of all labels; raises StageError if a phrase has two labels."""
    found: dict[tuple[str, ...], Phrase] = {}
    for row in labels.pack_phrases:
        for phrase in _phrases_of(row):
            first = found.setdefault(phrase.tokens, phrase)
            if first.label != phrase.label:
                raise StageError(
                    f"{labels.source}: on packs {phrase.text!r} stands for {first.label} and for {phrase.label}"
                )
            if first.strength < phrase.strength:
                found[phrase.tokens] = phrase
    return tuple(found.values())


def _phrases_of(row: PackPhrase) -> list[Phrase]:
    return [
        Phrase(row.label or None, row.language, row.strength, text, _words(text, row.language))
        for text in row.phrases.split("|")
    ]


def _words(text: str, language: str) -> tuple[tuple[str, ...], ...]:
    """Return the forms of each word or wildcard of a phrase."""
    parts = re.split(rf"([{GAP}{NUMBER}])", text)
    words = [token for part in parts for token in ([part] if part in (GAP, NUMBER) else tokenise(part))]
    # A single word with dropped letters is too ambiguous.
    left = [token for word in text.split() for token in tokenise(drop_stacked_marks(word)) or [""]]
    if language != "vi" or len(words) == 1 or len(left) != len(words):
        return tuple((word,) for word in words)
    return tuple((word, less) if less not in ("", word) else (word,) for word, less in zip(words, left, strict=True))

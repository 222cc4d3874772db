"""Whether a pack is written in a script that the OCR or the phrase table cannot read, and which."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Final

# Scripts that the phrase table has words in, as Unicode's names of letters begin.
_READ: Final = frozenset(
    ("LATIN", "CYRILLIC", "THAI", "HIRAGANA", "KATAKANA", "HANGUL", "CJK", "FULLWIDTH", "HALFWIDTH")
)
_MOST_LETTERS: Final = 2_000
# What a model without Cyrillic letters makes of them. Of Latin packs a good half of the letters are among these; of 192
# real photos, those with so many letters and this share were Cyrillic ones.
_LOOKS_CYRILLIC: Final = frozenset("ABCEHKMOPTXYacekmotpxyb")
_LEAST_LETTERS: Final = 14
_LEAST_SHARE: Final = 0.8


def unread_script(texts: Sequence[str]) -> str:
    """Return the script of a text in which nothing is found, in lower case; empty where it is one that can be read.

    "κρέμα προσώπου" -> "greek"; "AHTAPHBI CKPB TETA" (янтарный скраб ..., without Cyrillic letters) -> "cyrillic"
    """
    letters = [letter for letter in "".join(texts)[:_MOST_LETTERS] if letter.isalpha()]
    counts = Counter(unicodedata.name(letter, "").split(" ")[0].split("-")[0] for letter in letters)
    most = max(counts, key=counts.__getitem__, default="LATIN")
    if most not in _READ:
        return most.lower()
    latin = [letter for letter in letters if letter.isascii()]
    n_alike = sum(letter in _LOOKS_CYRILLIC for letter in latin)
    is_cyrillic = most == "LATIN" and len(latin) >= _LEAST_LETTERS and n_alike >= _LEAST_SHARE * len(latin)
    return "cyrillic" if is_cyrillic else ""

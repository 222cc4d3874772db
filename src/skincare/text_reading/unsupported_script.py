"""Detect text in a script without words in the phrase table."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Final

# Scripts with words in the phrase table, as the first word of Unicode's letter names.
_READ: Final = frozenset(
    ("LATIN", "CYRILLIC", "THAI", "HIRAGANA", "KATAKANA", "HANGUL", "CJK", "FULLWIDTH", "HALFWIDTH")
)
_MAX_LETTERS: Final = 2_000


def unsupported_script(texts: Sequence[str]) -> str:
    """Return the script of most letters in lower case if the phrase table has no words in it, else an empty string.

    "κρέμα προσώπου" -> "greek". `skincare.text_reading.scripts` detects misread scripts.
    """
    letters = [letter for letter in "".join(texts)[:_MAX_LETTERS] if letter.isalpha()]
    counts = Counter(unicodedata.name(letter, "").split(" ")[0].split("-")[0] for letter in letters)
    most = max(counts, key=counts.__getitem__, default="LATIN")
    return "" if most in _READ else most.lower()

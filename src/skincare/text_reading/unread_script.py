"""Whether a text is written in a script in which the phrase table has no words, and in which."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Final

# Scripts that the phrase table has words in, as Unicode's names of letters begin.
_READ: Final = frozenset(
    ("LATIN", "CYRILLIC", "THAI", "HIRAGANA", "KATAKANA", "HANGUL", "CJK", "FULLWIDTH", "HALFWIDTH")
)
_MOST_LETTERS: Final = 2_000


def unread_script(texts: Sequence[str]) -> str:
    """Return the script of most letters, in lower case, where the phrase table has no words in it; else empty.

    "κρέμα προσώπου" -> "greek". Of letters that were misread for others `skincare.text_reading.scripts` tells.
    """
    letters = [letter for letter in "".join(texts)[:_MOST_LETTERS] if letter.isalpha()]
    counts = Counter(unicodedata.name(letter, "").split(" ")[0].split("-")[0] for letter in letters)
    most = max(counts, key=counts.__getitem__, default="LATIN")
    return "" if most in _READ else most.lower()

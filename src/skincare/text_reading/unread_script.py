"""Which script a text is written in, and whether the phrase table has words in it."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Final

# As Unicode's names of letters begin.
_READ: Final = frozenset(
    ("LATIN", "CYRILLIC", "THAI", "HIRAGANA", "KATAKANA", "HANGUL", "CJK", "FULLWIDTH", "HALFWIDTH")
)
_MOST_LETTERS: Final = 2_000


def script_of(letter: str) -> str:
    """Return the script of a letter ("LATIN", "CYRILLIC", "CJK"); empty for what is no letter."""
    return unicodedata.name(letter, "").split(" ")[0].split("-")[0] if letter.isalpha() else ""


def unread_script(texts: Sequence[str]) -> str:
    """Return the script of most letters, in lower case, where the phrase table has no words in it; else empty."""
    letters = "".join(texts)[:_MOST_LETTERS]
    counts = Counter(script for letter in letters if (script := script_of(letter)))
    most = max(counts, key=counts.__getitem__, default="")
    return "" if most in _READ else most.lower()

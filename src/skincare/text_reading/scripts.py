"""The script that a text is written in, and signs that OCR took letters it does not know for others.

A model without Cyrillic letters reads "СКРАБ" as "CKPA5", one without Thai letters reads a line as "ons:la anaouSou":
with little confidence, and nearly all in the few Latin letters that look alike. Looked at on 192 real photos: Cyrillic
is said of six of the nine Russian packs, Thai of five of those with a line of Thai, neither of any other.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from skincare.text_reading.pack_text import TextLine

# First words of Unicode's names of letters, where they are not what people call the script.
_NAMES: Final = {"cjk": "chinese", "hiragana": "japanese", "katakana": "japanese"}
_SHORTEST: Final = 4


@dataclass(frozen=True)
class _Signs:
    """How lines of a script look when they are misread.

    alike: what its letters are taken for, accents left out; confidence: misread lines have less; share: of an image's
    letters, and letters: how many such lines must have at least.
    """

    alike: frozenset[str]
    confidence: float
    share: float
    letters: int


_ALIKE_SHARE: Final = 0.85
_SIGNS: Final = {
    "cyrillic": _Signs(frozenset("ABCEHKMOPTXYaceopxyΦΠΛΓ3Nb965I"), 0.95, 0.27, 7),
    "thai": _Signs(frozenset("unasloiwmhdkUIWTJrvLSMQN:15%"), 0.85, 0.03, 8),
}


def script_of(text: str) -> str:
    """Return the script of most letters, such as `latin` or `cyrillic`; nothing where there are no letters."""
    found = Counter(unicodedata.name(letter, "").partition(" ")[0].lower() for letter in text if letter.isalpha())
    if not found:
        return ""
    name = max(found, key=lambda name: (found[name], name))
    return _NAMES.get(name, name)


def misread_script(lines: Sequence[TextLine]) -> str:
    """Return the script that an image's lines seem to be misread from; nothing where they seem to be read."""
    n_letters = sum(len(_letters(line)) for line in lines)
    for script, signs in _SIGNS.items():
        n_misread = sum(len(_letters(line)) for line in lines if _is_misread(line, signs))
        if n_misread >= max(signs.letters, signs.share * n_letters):
            return script
    return ""


def _is_misread(line: TextLine, signs: _Signs) -> bool:
    letters = _letters(line)
    if line.confidence >= signs.confidence or len(letters) < _SHORTEST or letters.isdecimal():
        return False
    return sum(letter in signs.alike for letter in letters) >= _ALIKE_SHARE * len(letters)


def _letters(line: TextLine) -> str:
    """Return the letters and digits of a line without their accents."""
    return "".join(unicodedata.normalize("NFKD", one)[0] for one in line.text if one.isalnum())

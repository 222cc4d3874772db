"""Category texts of folders and tables -> labels: "Bath_Salts" -> Bath Salts, "moisturizer" -> Moisturiser."""

import difflib
import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache

from skincare.errors import StageError
from skincare.labels import Labels


class CategoryNames:
    """Maps category texts to labels, by label names, aliases and the mapping of the user."""

    def __init__(self, labels: Labels, mapped: Mapping[str, str]) -> None:
        self._labels = labels
        self._label_of = {normalised(alias.phrase): alias.label for alias in labels.aliases}
        self._label_of |= {normalised(name): name for name in labels.names}
        for text, label in mapped.items():
            if label not in labels.names:
                raise StageError(f"--categories {text!r} {label!r}: {label!r} is no label. {self._all_labels()}")
            self._label_of[normalised(text)] = label
        self.find = lru_cache(maxsize=4096)(self._find)

    def _find(self, text: str) -> str:
        """Return the label of a text; empty if there is none. Case, accents, `_` and `-` do not matter."""
        return self._label_of.get(normalised(text), "")

    def hint(self, text: str) -> str:
        """Return advice for a text without a label."""
        close = difflib.get_close_matches(normalised(text)[:100], self._label_of, n=1)
        nearest = f"nearest label: {self._label_of[close[0]]}; " if close else ""
        return f"{text[:100]!r} is no label; {nearest}map it with --categories {text[:100]!r} LABEL, or see labels.toml"

    def _all_labels(self) -> str:
        return f"Labels: {', '.join(self._labels.names)}"


def normalised(text: str) -> str:
    """Return a text's lower-case words without accents: " Bath_Salts" -> "bath salts"."""
    decomposed = unicodedata.normalize("NFKD", text[:1000]).casefold()
    plain = "".join(character for character in decomposed if not unicodedata.combining(character))
    return " ".join(re.findall(r"[^\W_]+", plain))

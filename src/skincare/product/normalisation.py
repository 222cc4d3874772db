"""Text of a product as it is compared: without case, accents, punctuation and repeated blanks."""

import re
import unicodedata


def normalised(text: str) -> str:
    """Return text as it is compared.

    >>> normalised("L’Oréal®  Paris")
    'loreal paris'
    """
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(c for c in decomposed if not unicodedata.combining(c) and c not in "'’®™©")
    return " ".join(re.findall(r"[^\W_]+", plain))

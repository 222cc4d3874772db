"""Confidence of the values that the rules found on a pack: the OCR confidence of the lines that print them.

It says how legible a value is, not whether it is the right field; `fuse.py` calibrates it on val.
"""

from collections.abc import Sequence
from typing import Any

from skincare.product.normalisation import normalised
from skincare.product.schema import FIELDS, Product
from skincare.product.sizes import parse_size
from skincare.text_reading.pack_text import TextLine
from skincare.text_reading.size_repair import repair_size

# The category is the reader's, with a probability of its own; a time of use is a conclusion from several words.
_PRINTED = tuple(name for name in FIELDS if name not in ("category", "forNightOrMorning"))


def line_confidences(product: Product, lines: Sequence[TextLine]) -> dict[str, float]:
    """Return field -> mean OCR confidence of the lines that print its value, weighted by their length.

    Fields without a value, and values that are not printed as they are, are left out.
    """
    found = {}
    for name in _PRINTED:
        value = getattr(product, name)
        printed = [] if value is None else [line for line in lines if _prints(name, value, line.text)]
        weight = sum(len(line.text) for line in printed)
        if weight:
            found[name] = sum(line.confidence * len(line.text) for line in printed) / weight
    return found


def _prints(name: str, value: Any, line: str) -> bool:
    """Return whether a line prints a value or a part of it."""
    if name == "size":
        truth, printed = parse_size(value), parse_size(repair_size(line))
        return truth is not None and printed is not None and truth.equals(printed, 0.0)
    if isinstance(value, tuple):
        return any(_prints("", one, line) for one in value)
    one, other = normalised(value).replace(" ", ""), normalised(line).replace(" ", "")
    return bool(one and other) and (one in other or other in one)

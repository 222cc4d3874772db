"""Structured answers that differ in their category only, to compare what a model would answer for two labels."""

import json
from typing import Final

from skincare.inference.field_confidence import value_spans

_FIELD: Final = "category"


def with_category(text: str, label: str) -> str | None:
    """Return an answer up to its category, which is replaced by the label; None for text that is no JSON up to there.

    One character after the value is kept, because the tokens at the end of a value depend on what follows.

    '{"brand":null,"category":"Balm","size":null}', "Mask" -> '{"brand":null,"category":"Mask",'
    """
    span = value_spans(text).get(_FIELD)
    if span is None:
        return None
    # The span of a string begins after its quote.
    start = span.start - (text[span.start - 1] == '"')
    return text[:start] + json.dumps(label, ensure_ascii=False) + text[span.end : span.end + 1]

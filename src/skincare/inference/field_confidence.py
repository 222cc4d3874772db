"""Confidence of the fields of a structured answer, from the log-probabilities of its tokens.

    {"brand":"Weleda","size":null}     brand: mean over the tokens of Weleda", size: mean over the token of null

The closing quote counts, since it decides where the value ends. Text that is no JSON up to a field has no confidence
from that field on.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_BLANK: Final = re.compile(r"[ \t\r\n]*")
_DECODER: Final = json.JSONDecoder()


@dataclass(frozen=True)
class Span:
    """The characters of a value: from `start` up to, not including, `end`."""

    start: int
    end: int


def value_spans(text: str) -> dict[str, Span]:
    """Return field -> characters of its value in the first object of a text, as far as the text is JSON.

    Of a field that occurs twice the last value counts, as for `json.loads`.
    """
    spans: dict[str, Span] = {}
    place = text.find("{")
    while place >= 0 and (at := _after(text, place + 1)) < len(text) and text[at] == '"':
        try:
            name, at = _DECODER.raw_decode(text, at)
            at = _after(text, at)
            if text[at : at + 1] != ":":
                break
            start = _after(text, at + 1)
            _, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            break
        spans[name] = Span(start + (text[start] == '"'), end)
        place = _after(text, end)
        if text[place : place + 1] != ",":
            break
    return spans


def token_ends(tokens: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[int]:
    """Return, for each token, the number of characters of the text up to its end; never decreasing."""
    ends: list[int] = []
    for n in range(1, len(tokens) + 1):
        ends.append(max(len(decode(tokens[:n])), ends[-1] if ends else 0))
    return ends


def field_log_probabilities(
    text: str, ends: Sequence[int], log_probabilities: Sequence[float], fields: Sequence[str]
) -> dict[str, float]:
    """Return field -> mean log-probability of the tokens that overlap its value.

    ends: of the tokens, see `token_ends`. Fields without a value in the text are left out.
    """
    if len(ends) != len(log_probabilities):
        raise ValueError(f"{len(ends)} tokens with {len(log_probabilities)} log-probabilities")
    starts = [0, *ends[:-1]]
    spans = value_spans(text)
    found: dict[str, float] = {}
    for field in fields:
        if (span := spans.get(field)) is None:
            continue
        inside = [
            value
            for start, end, value in zip(starts, ends, log_probabilities, strict=True)
            if start < span.end and end > span.start
        ]
        if inside:
            found[field] = sum(inside) / len(inside)
    return found


def checked(values: Any) -> Mapping[str, float]:
    """Return confidences read from a file; ValueError for anything but numbers up to 0 by name."""
    if not isinstance(values, dict) or not all(
        isinstance(key, str) and isinstance(value, int | float) and not isinstance(value, bool) and value <= 0
        for key, value in values.items()
    ):
        raise ValueError(f"field_log_probabilities is {values!r}")
    return values


def _after(text: str, place: int) -> int:
    match = _BLANK.match(text, place)
    return match.end() if match else place

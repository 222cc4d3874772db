"""Structured answers from JSON Lines: those of a model's predictions, or texts of any other system.

{"image_id": "11396687_1", "text": "{\\"brand\\": ...", "field_log_probabilities": {"brand": -0.1}, ...}
{"image_id": "11396687_1", "answer": "{\\"brand\\": ..."}
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skincare.dataset.chat import Example
from skincare.errors import StageError
from skincare.evaluation.field_calibration import confidences
from skincare.evaluation.product_metrics import ScoredProduct
from skincare.inference.field_confidence import checked
from skincare.inference.predictions import Prediction
from skincare.product.json_answers import ParsedProduct, parse_product
from skincare.product.schema import canonical_product


@dataclass(frozen=True)
class ProductAnswer:
    """A parsed answer; confidences: field -> probability of its value, empty for systems without them."""

    parsed: ParsedProduct
    confidences: Mapping[str, float] = field(default_factory=dict)


def scored_predictions(
    examples: Sequence[Example], predictions: Sequence[Prediction], absent: Mapping[str, frozenset[str]] | None = None
) -> list[ScoredProduct]:
    """Return the structured answers about examples, scored against the answers of the dataset.

    absent: product id -> fields that the product is known to lack; the null of a dataset can also mean unknown.
    Raises StageError where an example has no prediction.
    """
    found = {one.image_id: one for one in predictions}
    if missing := [one.image_id for one in examples if one.image_id not in found]:
        raise StageError(f"no prediction of {len(missing)} of {len(examples)} images, such as {missing[0]}")
    none: frozenset[str] = frozenset()
    return [_scored(one, found[one.image_id], (absent or {}).get(one.product_id, none)) for one in examples]


def _scored(example: Example, prediction: Prediction, absent: frozenset[str]) -> ScoredProduct:
    parsed = parse_product(prediction.text)
    return ScoredProduct(
        example.image_id, example.product_id, canonical_product(example.product), parsed.product, parsed.status,
        absent, confidences(prediction.field_log_probabilities),
    )  # fmt: skip


def answer_of_text(text: str, field_log_probabilities: Mapping[str, float]) -> ProductAnswer:
    """Return the answer of a generated text."""
    return ProductAnswer(parse_product(text), confidences(field_log_probabilities))


def read_answers(path: Path, image_ids: Collection[str]) -> dict[str, ProductAnswer]:
    """Return image id -> answer; raises StageError for a malformed line, or an image without an answer."""
    found: dict[str, ProductAnswer] = {}
    for number, values in _lines(path):
        try:
            text = str(values["answer"] if "answer" in values else values["text"])
            scores = dict(checked(values.get("field_log_probabilities", {})))
            found[str(values["image_id"])] = answer_of_text(text, scores)
        except (ValueError, KeyError, TypeError) as error:
            raise StageError(f"{path}, line {number}: no image_id with an answer ({error})") from error
    absent = sorted(set(image_ids) - set(found))
    if absent:
        raise StageError(f"{path}: no answer about {len(absent)} of {len(image_ids)} images, such as {absent[0]}")
    return found


def holds_structured_answers(path: Path, split: str) -> bool:
    """Return whether a file of predictions exists and holds structured answers of a split; its first line decides."""
    if not path.is_file():
        return False
    first = next(iter(_lines(path)), None)
    return first is not None and (first[1].get("target"), first[1].get("split")) == ("product", split)


def _lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return (line number, object) of the lines of a file; raises StageError for another kind of line."""
    found = []
    try:
        # Not splitlines(): a text may hold U+2028, which JSON leaves as it is.
        for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
            if line.strip():
                values = json.loads(line)
                if not isinstance(values, dict):
                    raise ValueError("not an object")
                found.append((number, values))
    except OSError as error:
        raise StageError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise StageError(f"{path}, line {number}: no image_id with an answer ({error})") from error
    return found

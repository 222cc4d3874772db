"""Fusion of two structured answers about one image, those of a model and of the reader, field by field; pure.

Confidences become probabilities that a value is correct (`field_calibrators`). Of two values that agree either may be
kept, with the probability 1 - (1 - p)(1 - q); of two that differ the more probable one is kept, with its own. Both
cases are calibrated again, since the two systems fail on the same packs. A field is null where its probability is below
the threshold with the highest F1 on val, or where neither system has a value.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from skincare.errors import MissingInputError, StageError
from skincare.evaluation import field_calibrators
from skincare.evaluation.calibration import Mask
from skincare.evaluation.field_policy import NO_CONFIDENCE, Calibrator
from skincare.evaluation.field_similarity import similarity
from skincare.evaluation.product_metrics import MIN_SIMILARITY, ScoredProduct, outcome
from skincare.files import write_json
from skincare.product.schema import FIELDS, Product

# In the folder of a model that answers with products, next to the reader that the fusion belongs to.
FILE: Final = "product_fusion.json"
_VERSION: Final = 1
_REMEDY: Final = "Make it with `python src/fuse.py`."
# Threshold of a field of which no value on val has a known truth.
_UNKNOWN_THRESHOLD: Final = 0.5
_UNCHANGED: Final = Calibrator()

Case = Literal["agreed", "disagreed", "alone"]
# The cases with a calibrator of their own.
_CASES: Final[tuple[Case, Case]] = ("agreed", "disagreed")


@dataclass(frozen=True)
class FieldFusion:
    """How the values of one field are fused.

    model, reader: of the values of each. agreed, disagreed: of the fused values in that case. threshold: null below;
    None: always null. wanted: thresholds for accepted error rates.
    """

    model: Calibrator = _UNCHANGED
    reader: Calibrator = _UNCHANGED
    agreed: Calibrator = _UNCHANGED
    disagreed: Calibrator = _UNCHANGED
    threshold: float | None = 0.0
    wanted: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class FieldAnswer:
    """A structured answer and the confidence of each of its values, where there is one."""

    product: Product | None
    confidences: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FusedValue:
    """The value of a field before its threshold, the probability that it is correct, and where it is from."""

    value: Any
    confidence: float
    case: Case


def fit(model: Sequence[ScoredProduct], reader: Sequence[ScoredProduct]) -> dict[str, FieldFusion]:
    """Return the fusion of each field, fitted on the answers of both for the images of val, in the same order.

    Raises ValueError if the images differ.
    """
    if [one.image_id for one in model] != [one.image_id for one in reader]:
        raise ValueError("only answers about the same images in the same order can be fused")
    return {name: _fit_field(name, model, reader) for name in FIELDS}


def _fit_field(name: str, model: Sequence[ScoredProduct], reader: Sequence[ScoredProduct]) -> FieldFusion:
    of_model, of_reader = (field_calibrators.fit(*field_calibrators.values_of(name, part)) for part in (model, reader))
    found = FieldFusion(of_model, of_reader)
    raw = _fused_values(name, found, model, reader)
    agreed, disagreed = (_fit_case([one for one in raw if one[1].case == case], name) for case in _CASES)
    found = replace(found, agreed=agreed, disagreed=disagreed)
    fused = _confidences_and_hits(name, _fused_values(name, found, model, reader))
    n_true = sum(getattr(one.truth, name) is not None for one in model)
    threshold = field_calibrators.best_f1_threshold(*fused, n_true) if len(fused[0]) else _UNKNOWN_THRESHOLD
    return replace(found, threshold=threshold, wanted=field_calibrators.thresholds(fused))


def _fused_values(
    name: str, fusion: FieldFusion, model: Sequence[ScoredProduct], reader: Sequence[ScoredProduct]
) -> list[tuple[ScoredProduct, FusedValue]]:
    """Return the fused values whose correctness is known, with the answers of the model."""
    return [
        (one, value)
        for one, other in zip(model, reader, strict=True)
        if getattr(one.truth, name) is not None or name in one.absent
        if (value := fuse_value(name, fusion, _answer(one), _answer(other)))
    ]


def _fit_case(values: Sequence[tuple[ScoredProduct, FusedValue]], name: str) -> Calibrator:
    return field_calibrators.fit(*_confidences_and_hits(name, values))


def _answer(one: ScoredProduct) -> FieldAnswer:
    return FieldAnswer(one.predicted, one.confidences)


def _confidences_and_hits(
    name: str, known: Sequence[tuple[ScoredProduct, FusedValue]]
) -> tuple[field_calibrators.Confidences, Mask]:
    hits = [outcome(_with_value(one, name, value.value), name) == "correct" for one, value in known]
    return np.array([value.confidence for _, value in known], np.float64), np.array(hits, np.bool_)


def _with_value(one: ScoredProduct, name: str, value: Any) -> ScoredProduct:
    return ScoredProduct(
        one.image_id, one.product_id, one.truth, Product(**{name: value}), "valid", absent=one.absent
    )  # fmt: skip


def fuse_value(name: str, fusion: FieldFusion, model: FieldAnswer, reader: FieldAnswer) -> FusedValue | None:
    """Return the fused value of a field; None where neither has one. Of two that agree the more probable is kept."""
    found = [
        (getattr(answer.product, name), calibrator(answer.confidences.get(name, NO_CONFIDENCE)))
        for answer, calibrator in ((model, fusion.model), (reader, fusion.reader))
        if answer.product is not None and getattr(answer.product, name) is not None
    ]
    if not found:
        return None
    if len(found) == 1:
        return FusedValue(*found[0], "alone")
    (one, p), (other, q) = found
    if similarity(name, one, other) >= MIN_SIMILARITY:
        return FusedValue(one if p >= q else other, fusion.agreed(1 - (1 - p) * (1 - q)), "agreed")
    return FusedValue(one if p >= q else other, fusion.disagreed(max(p, q)), "disagreed")


def fuse(fusion: Mapping[str, FieldFusion], model: FieldAnswer, reader: FieldAnswer) -> FieldAnswer:
    """Return the fused answer; its confidences are those of all fused values, also of those that are null."""
    found = {name: one for name in FIELDS if (one := fuse_value(name, fusion[name], model, reader))}
    kept = {name: one.value for name, one in found.items() if _is_kept(one, fusion[name].threshold)}
    return FieldAnswer(Product(**kept), {name: one.confidence for name, one in found.items()})


def _is_kept(one: FusedValue, threshold: float | None) -> bool:
    return threshold is not None and one.confidence >= threshold


def write(folder: Path, fusion: Mapping[str, FieldFusion], **notes: Any) -> None:
    """Write the fusion into a model's folder, with notes on how it was fitted."""
    fields = {name: asdict(one) for name, one in fusion.items()}
    write_json(folder / FILE, {"version": _VERSION, "fields": fields, **notes})


def read(folder: Path) -> tuple[dict[str, FieldFusion], dict[str, Any]]:
    """Return the fusion and the notes of a model's folder.

    Raises MissingInputError for a missing file, StageError for a damaged one.
    """
    path = folder / FILE
    if not path.is_file():
        raise MissingInputError("fusion of the model's products with the reader's", path, _REMEDY)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.pop("version") != _VERSION:
            raise ValueError("another version")
        fields = found.pop("fields")
        return {name: _parse(fields[name]) for name in FIELDS}, found
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StageError(f"{path}: not a fusion of products ({error!r})\n{_REMEDY}") from error


def _parse(value: Mapping[str, Any]) -> FieldFusion:
    names = ("model", "reader", "agreed", "disagreed")
    threshold = value["threshold"]
    wanted = [{key: one[key] for key in ("wanted_risk", "threshold")} for one in value["wanted"]]
    return FieldFusion(
        **{name: Calibrator(float(value[name]["slope"]), float(value[name]["offset"])) for name in names},
        threshold=None if threshold is None else float(threshold), wanted=wanted,
    )  # fmt: skip

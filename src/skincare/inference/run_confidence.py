"""Temperature and abstention threshold that a training run chose on val, read from its confidence.json.

The file is searched in the model's folder, then in the run's log. A threshold holds for the decoder and the
temperature that it was chosen with, so it is not used with others.
"""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from skincare.errors import StageError
from skincare.evaluation import field_policy
from skincare.evaluation.field_policy import FieldPolicy
from skincare.modeling.settings import DecoderName
from skincare.paths import Layout

logger = logging.getLogger(__name__)

FILE: Final = "confidence.json"
# Error rate that is accepted by default: 90 % of the answers should be right.
DEFAULT_MAX_ERROR: Final = 0.1


@dataclass(frozen=True)
class RunConfidence:
    """How a model's probabilities are used. needs_probabilities: a decoder that gives them is needed."""

    temperature: float
    threshold: float | None
    needs_probabilities: bool


def choose(
    layout: Layout, source: Path, decoder: DecoderName | None, temperature: float | None,
    min_confidence: float | None, max_error: float | None,
) -> RunConfidence:  # fmt: skip
    """Return temperature and threshold for a model: explicit values first, then those of its confidence.json.

    Raises StageError if `max_error` is given and no threshold was chosen for it.
    """
    found = _read(layout, source)
    of_run = float(found["temperature"]) if found else 1.0
    is_same_decoder = decoder is None or decoder == _decoder(layout, source)
    scale = temperature if temperature is not None else of_run if found and is_same_decoder else 1.0
    threshold = min_confidence
    if threshold is None and found and is_same_decoder and scale == of_run:
        threshold = threshold_for(found["wanted"], max_error, source)
    elif threshold is None and max_error is not None:
        raise StageError(
            f"--max-error needs a {FILE} of {source} for this decoder and temperature; name --min-confidence instead"
        )
    needs_probabilities = min_confidence is not None or (bool(found) and decoder is None)
    return RunConfidence(scale, threshold, needs_probabilities)


def fused_threshold(source: Path, min_confidence: float | None, max_error: float | None) -> float | None:
    """Return the threshold of the fusion in a model's folder, as fuse.py chose it on val."""
    if min_confidence is not None:
        return min_confidence
    from skincare.evaluation import fusion

    _, notes = fusion.read(source)
    return threshold_for(notes.get("wanted", []), max_error, source)


def threshold_for(wanted: Sequence[Mapping[str, Any]], max_error: float | None, source: Path) -> float | None:
    """Return the threshold for an accepted error rate; by default for 0.1 or the next larger one that has one.

    wanted: objects with `wanted_risk` and `threshold`. Without a threshold the model does not abstain, and the log
    says so; raises StageError if `max_error` was given.
    """
    known = {float(one["wanted_risk"]): float(one["threshold"]) for one in wanted if one["threshold"] is not None}
    if max_error is not None:
        if max_error not in known:
            rates = ", ".join(f"{rate:g}" for rate in sorted(known)) or "none"
            raise StageError(
                f"{source}: no threshold was chosen for --max-error {max_error:g}; there is one for {rates}"
            )
        return known[max_error]
    rate = min((rate for rate in known if rate >= DEFAULT_MAX_ERROR), default=None)
    if rate is None:
        logger.info("%s: no threshold was chosen on val, every image gets a label", source)
        return None
    logger.info("%s abstains below %.3f: at most %.0f %% errors, as chosen on val", source, known[rate], 100 * rate)
    return known[rate]


def field_policy_of(
    layout: Layout, source: Path, decoder: DecoderName | None, min_confidence: float | None, max_error: float | None
) -> FieldPolicy:
    """Return the calibrators and thresholds of a model of products, for the decoder that they were fitted with.

    Raises StageError if `max_error` is given and the run has no field_confidence.json.
    """
    paths = [source / field_policy.FILE]
    if _is_run(layout, source):
        paths.append(layout.finetune_log(source.name) / field_policy.FILE)
    path = next((one for one in paths if one.is_file()), None)
    if path and decoder in (None, "generate"):
        return field_policy.read(path, min_confidence, max_error, DEFAULT_MAX_ERROR)
    if max_error is not None:
        raise StageError(
            f"--max-error needs a {field_policy.FILE} of {source}, for the decoder generate; name --min-confidence"
        )
    return field_policy.policy({}, min_confidence, None, DEFAULT_MAX_ERROR)


def _read(layout: Layout, source: Path) -> dict[str, Any]:
    """Return temperature and thresholds of confidence.json; empty without one. Raises StageError if it is malformed."""
    for path in (source / FILE, layout.finetune_log(source.name) / FILE):
        if path.parent != source and not _is_run(layout, source):
            continue
        if not path.is_file():
            continue
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            temperature = float(found["temperature"])
            if not 0 < temperature < math.inf:
                raise ValueError(f"temperature {temperature}")
            return {"temperature": temperature, "wanted": [_wanted(one) for one in found["wanted"]]}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise StageError(f"{path}: not the confidence of a run ({error}); run `python src/finetune.py`") from error
    return {}


def _wanted(values: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the accepted error rate and the threshold that was chosen for it, None without one."""
    threshold = values["threshold"]
    return {
        "wanted_risk": float(values["wanted_risk"]),
        "threshold": None if threshold is None else float(threshold),
    }


def _decoder(layout: Layout, source: Path) -> str | None:
    """Return the decoder of the run's ranked predictions, if its log is there."""
    path = layout.finetune_log(source.name) / "manifest.json"
    if not _is_run(layout, source) or not path.is_file():
        return None
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["predictions"]["test_ranked.jsonl"]["decoder"])
    except (ValueError, KeyError, TypeError):
        return None


def _is_run(layout: Layout, source: Path) -> bool:
    return source.resolve() == layout.finetuned_model(source.name).resolve()

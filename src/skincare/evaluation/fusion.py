"""Fusion of model and reader: their log-probabilities in, fused log-probabilities out; pure functions.

    read      log p = model x log p(model) + reader x log p(reader) + constant
    not read  log p = model_alone x log p(model) + constant

Three weights are fitted on val: those of model and reader for packs with text, and the model's for packs without. They
act as inverse temperatures, so the result is calibrated too. The reader's prior is ignored for a pack without text.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import optimize

from skincare.errors import MissingInputError, StageError
from skincare.evaluation.calibration import ClassIndices, LogProbabilities, Mask, apply_temperature
from skincare.files import write_json

# Both are in the model's folder; the weights belong to the reader in READER_FOLDER.
FILE: Final = "fusion.json"
READER_FOLDER: Final = "reader"
_VERSION: Final = 1
_REMEDY: Final = "Make it with `python src/fuse.py`."

# Prior of the weights: the mean of model and reader, and the unchanged model.
_PRIOR: Final = np.array([0.5, 0.5, 1.0])
# Strength of the prior in images: 40 images of val outweigh it, a single one does not.
_PRIOR_IMAGES: Final = 4.0
# Bounds of a weight, temperatures of 20 to 0.05. A weight of 0 would make all categories equal.
_LEAST, _MOST = 0.05, 20.0


@dataclass(frozen=True)
class Fusion:
    """The weights of model and reader for packs with text, and of the model for the others."""

    model: float
    reader: float
    model_alone: float


def fit(model: LogProbabilities, reader: LogProbabilities, is_read: Mask, truths: ClassIndices) -> Fusion:
    """Return the weights of the least negative log-likelihood, with a Gaussian prior around the plain mean.

    model, reader: (n, k) log-probabilities; is_read: (n,), whether the pack has text. The loss is convex.
    Raises StageError if the tables differ in length or are empty.
    """
    if not len(model) == len(reader) == len(is_read) == len(truths) or not len(truths):
        raise StageError(f"Cannot fuse {len(model)} predictions of the model with {len(reader)} of the reader")
    tables = np.stack([model * is_read[:, None], reader * is_read[:, None], model * ~is_read[:, None]])
    of_truths = tables[:, np.arange(len(truths)), truths]

    def loss(weights: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        logits = np.tensordot(weights, tables, axes=1)
        totals = np.logaddexp.reduce(logits, axis=1)
        probabilities = np.exp(logits - totals[:, None])
        offset = weights - _PRIOR
        value = float((totals - weights @ of_truths).sum() + _PRIOR_IMAGES * offset @ offset)
        gradient = (tables * probabilities).sum(axis=(1, 2)) - of_truths.sum(axis=1) + 2 * _PRIOR_IMAGES * offset
        return value / len(truths), gradient / len(truths)

    found = optimize.minimize(loss, _PRIOR, jac=True, method="L-BFGS-B", bounds=[(_LEAST, _MOST)] * 3)
    return Fusion(*(float(value) for value in found.x))


def fuse(fusion: Fusion, model: LogProbabilities, reader: LogProbabilities, is_read: Mask) -> LogProbabilities:
    """Return (n, k) fused log-probabilities."""
    both = fusion.model * model + fusion.reader * reader
    return apply_temperature(np.where(is_read[:, None], both, fusion.model_alone * model), 1.0)


def write(folder: Path, fusion: Fusion, **notes: Any) -> None:
    """Write the weights into a model's folder, with notes on how they were fitted."""
    write_json(folder / FILE, {"version": _VERSION, **asdict(fusion), **notes})


def read(folder: Path) -> tuple[Fusion, dict[str, Any]]:
    """Return weights and notes of a model's folder.

    Raises MissingInputError for a missing file, StageError for a damaged one.
    """
    path = folder / FILE
    if not path.is_file():
        raise MissingInputError("fusion of the model with the reader", path, _REMEDY)
    names = [field.name for field in fields(Fusion)]
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        weights = [float(found.pop(name)) for name in names]
        if found.pop("version") != _VERSION or not all(0 <= weight <= _MOST for weight in weights):
            raise ValueError("another version, or weights out of range")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StageError(f"{path}: {error}\n{_REMEDY}") from error
    return Fusion(*weights), found

"""Fusion of model and reader: their log-probabilities in, fused log-probabilities out; pure functions.

    read      log p = model x log p(model) + reader x log p(reader) + constant
    not read  log p = model_alone x log p(model) + constant

Three numbers, which are weights and temperature at once, fitted on val: an inverse temperature for the model where the
pack says nothing, and one each where it does. The reader's prior is ignored for a pack that was not read.
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

# In a model's folder; `READER_FOLDER` holds the reader that the weights were fitted with.
FILE: Final = "fusion.json"
READER_FOLDER: Final = "reader"
_VERSION: Final = 1
_REMEDY: Final = "Make it with `python src/fuse.py`."

# What the weights are before val has spoken: both halves of a mean, and the model as it is.
_PRIOR: Final = np.array([0.5, 0.5, 1.0])
# How many images the prior counts as: few, so that 40 of val decide, and one alone does not.
_PRIOR_IMAGES: Final = 4.0
# Of a weight: temperatures of 20 to 0.05. With none at all the answer would be whichever category comes first.
_LEAST, _MOST = 0.05, 20.0


@dataclass(frozen=True)
class Fusion:
    """The weights: of the model and of the reader on packs that were read, of the model on all others."""

    model: float
    reader: float
    model_alone: float


def fit(model: LogProbabilities, reader: LogProbabilities, is_read: Mask, truths: ClassIndices) -> Fusion:
    """Return the weights under which the truths are likeliest, pulled towards a plain mean as by a few images.

    model, reader: (n, k) log-probabilities; is_read: (n,), whether the pack was read. The loss is convex, so that
    there is one optimum. Raises StageError where the tables do not fit together.
    """
    if not len(model) == len(reader) == len(is_read) == len(truths) or not len(truths):
        raise StageError(f"Fusing {len(model)} answers of the model with {len(reader)} of the reader is impossible")
    tables = np.stack([model * is_read[:, None], reader * is_read[:, None], model * ~is_read[:, None]])
    of_truths = tables[:, np.arange(len(truths)), truths]

    def loss(weights: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        logits = np.tensordot(weights, tables, axes=1)
        totals = np.logaddexp.reduce(logits, axis=1)
        chances = np.exp(logits - totals[:, None])
        pull = weights - _PRIOR
        value = float((totals - weights @ of_truths).sum() + _PRIOR_IMAGES * pull @ pull)
        slope = (tables * chances).sum(axis=(1, 2)) - of_truths.sum(axis=1) + 2 * _PRIOR_IMAGES * pull
        return value / len(truths), slope / len(truths)

    found = optimize.minimize(loss, _PRIOR, jac=True, method="L-BFGS-B", bounds=[(_LEAST, _MOST)] * 3)
    return Fusion(*(float(value) for value in found.x))


def fuse(fusion: Fusion, model: LogProbabilities, reader: LogProbabilities, is_read: Mask) -> LogProbabilities:
    """Return (n, k) log-probabilities of both together."""
    both = fusion.model * model + fusion.reader * reader
    return apply_temperature(np.where(is_read[:, None], both, fusion.model_alone * model), 1.0)


def write(folder: Path, fusion: Fusion, **notes: Any) -> None:
    """Write the weights into a model's folder, with notes on what they were fitted on."""
    write_json(folder / FILE, {"version": _VERSION, **asdict(fusion), **notes})


def read(folder: Path) -> tuple[Fusion, dict[str, Any]]:
    """Return weights and notes of a model's folder.

    Raises MissingInputError where there are none, StageError where they are not what `write` writes.
    """
    path = folder / FILE
    if not path.is_file():
        raise MissingInputError("fusion of the model with the reader", path, _REMEDY)
    names = [field.name for field in fields(Fusion)]
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        weights = [float(found.pop(name)) for name in names]
        if found.pop("version") != _VERSION or not all(0 <= weight <= _MOST for weight in weights):
            raise ValueError("another version, or weights that cannot be")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StageError(f"{path}: {error}\n{_REMEDY}") from error
    return Fusion(*weights), found

"""The reader: predicts label probabilities from the text of a pack, with the phrases that decided.

    log p(label) = prior + EVIDENCE_WEIGHT x evidence of the phrase table
                         + CLASSIFIER_WEIGHT x log p of the linear classifier + constant

The phrase table works without training; the classifier is added if there are texts of the user's own products (names
of a catalogue, texts of the training packs). No constant is fitted on photos: the prior is the label distribution of
the catalogue names without evidence, the weights maximise the likelihood of the catalogue names.
`benchmarks/real_photos.py` measures accuracy and calibration on real photos.
"""

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from skincare.errors import StageError
from skincare.files import write_bytes, write_json
from skincare.labels import Labels
from skincare.text_reading import text_classifier
from skincare.text_reading.evidence import Evidence, finder_of, scores
from skincare.text_reading.pack_text import TextLine
from skincare.text_reading.text_classifier import TextClassifier
from skincare.text_reading.unsupported_script import unsupported_script

FloatArray = npt.NDArray[np.float64]
ReaderStatus = Literal["read", "abstained", "no_text", "other_script"]

# Increment it with every change of the predictions; the phrase table has a digest of its own.
VERSION: Final = 1

# Maximum likelihood on the 1,126 catalogue names is 3.04; on 192 real photos it would be 2.9.
EVIDENCE_WEIGHT: Final = 3.0
# Maximum likelihood on names is 1.1 (folds grouped by brand); halved, since packs contain text that names do not.
CLASSIFIER_WEIGHT: Final = 0.5
# Share of uniform probability mixed into the classifier, so that it does not outweigh strong evidence.
_SMOOTHING: Final = 0.1
# Weight of the log prior: counts of names without evidence (see labels.toml), with add-one smoothing.
_PRIOR: Final = 0.5
# The reader abstains below it. 91 % of the catalogue names reach it, and 96 % of those are correct.
THRESHOLD: Final = 0.6
EXPECTED_ACCURACY: Final = 0.96

_MAX_LINES: Final = 300
_MAX_WORDS: Final = 8  # evidence shown with a prediction
_SETTINGS: Final = "reader.json"
_ARRAYS: Final = "reader.npz"

Line = str | TextLine


@dataclass(frozen=True)
class ReaderPrediction:
    """Prediction for one pack. `label` is None unless `status` is `read`; `confidence`: the highest probability."""

    label: str | None
    status: ReaderStatus
    confidence: float
    log_probabilities: tuple[float, ...]
    evidence: tuple[str, ...]


class Reader:
    """Classifies the text of packs by the phrase table and, if fitted, a linear text classifier."""

    def __init__(self, labels: Labels, classifier: TextClassifier | None = None, threshold: float = THRESHOLD) -> None:
        self.labels = labels
        self.classifier = classifier
        self.threshold = threshold
        self._finder = finder_of(labels)
        counts = 1 + np.array(labels.n_unnamed, dtype=np.float64)
        self._prior = _PRIOR * np.log(counts / counts.sum())

    @classmethod
    def fit(cls, labels: Labels, texts: Sequence[str], truths: Sequence[str], threshold: float = THRESHOLD) -> "Reader":
        """Return a reader with a classifier fitted on texts of products, such as their names; takes a few seconds.

        Raises StageError for fewer than two categories.
        """
        if len(set(truths)) < 2:
            raise StageError("The reader learns from texts of at least two categories")
        return cls(labels, text_classifier.fit(labels, texts, truths), threshold)

    def log_probabilities(self, texts: Sequence[Sequence[Line]]) -> FloatArray:
        """Return (N, n_labels) log-probabilities in the order of the labels; the prior for packs without text."""
        return np.array([self._read(lines)[0] for lines in texts]).reshape(len(texts), len(self.labels))

    def predict(self, lines: Sequence[Line], other_script: str = "") -> ReaderPrediction:
        """Return the prediction for lines in reading order.

        other_script: see `PackText`; reported as the status if the other lines do not suffice.
        """
        table, evidence = self._read(lines)
        confidence = float(np.exp(table.max()))
        label = self.labels.names[int(table.argmax())]
        status = self._status(lines, confidence, other_script)
        words = dict.fromkeys(one.text for one in evidence if one.label == label and one.weight > 0)
        return ReaderPrediction(
            label if status == "read" else None,
            status,
            confidence,
            tuple(table.tolist()),
            tuple(words)[:_MAX_WORDS],
        )

    def _status(self, lines: Sequence[Line], confidence: float, other_script: str) -> ReaderStatus:
        texts = [_text(line) for line in lines]
        if confidence >= self.threshold and any(map(_has_letters, texts)):
            return "read"
        if other_script or unsupported_script(texts):
            return "other_script"
        return "abstained" if any(map(_has_letters, texts)) else "no_text"

    def _read(self, lines: Sequence[Line]) -> tuple[FloatArray, list[Evidence]]:
        """Return (n_labels,) log-probabilities and the evidence, by decreasing weight."""
        lines = lines[:_MAX_LINES]
        texts = [_text(line) for line in lines]
        heights = [line.height for line in lines if isinstance(line, TextLine)]
        evidence = self._finder.find(texts, heights if len(heights) == len(lines) else None)
        logits = self._prior + EVIDENCE_WEIGHT * scores(evidence, self.labels)
        if self.classifier is not None and any(map(_has_letters, texts)):
            learnt = np.exp(self.classifier.log_probabilities(" ".join(texts)))
            logits = logits + CLASSIFIER_WEIGHT * np.log((1 - _SMOOTHING) * learnt + _SMOOTHING / len(self.labels))
        table = logits - np.logaddexp.reduce(logits)
        return table, sorted(evidence, key=lambda one: -one.weight)

    def save(self, folder: Path, **notes: Any) -> None:
        """Write reader.json (settings and `notes`) and reader.npz (the classifier, if any)."""
        arrays = io.BytesIO()
        named: dict[str, Any] = self.classifier.arrays() if self.classifier else {}
        np.savez_compressed(arrays, **named)
        write_bytes(folder / _ARRAYS, arrays.getvalue())
        # Written last: its presence means that the arrays are complete.
        settings = {"version": VERSION, "threshold": self.threshold, "expected_accuracy": EXPECTED_ACCURACY,
                    "labels": self.labels.digest, **notes}  # fmt: skip
        write_json(folder / _SETTINGS, settings)

    @classmethod
    def load(cls, folder: Path, labels: Labels) -> "Reader":
        """Return a saved reader; raises StageError unless it is one of this version and these labels."""
        settings = read_settings(folder)
        try:
            with np.load(folder / _ARRAYS, allow_pickle=False) as arrays:
                classifier = TextClassifier.from_arrays(arrays, len(labels)) if arrays.files else None
            threshold = float(settings.get("threshold", THRESHOLD))
        except (OSError, EOFError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
            raise StageError(f"{folder} holds no reader: {error}") from error
        if settings.get("version") != VERSION:
            raise StageError(f"{folder} is a reader of another version")
        if settings.get("labels") != labels.digest:
            raise StageError(f"{folder} is a reader of other labels than those of {labels.source}")
        return cls(labels, classifier, threshold)


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the settings of a saved reader; empty if there are none."""
    try:
        found = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(line: Line) -> str:
    return line if isinstance(line, str) else line.text


def _has_letters(text: str) -> bool:
    return any(map(str.isalpha, text))

"""The reader: the text of a pack in, probabilities of the labels out, with the words that decided.

    log p(category) = prior + RULES x evidence of the phrase table + TEXT x log p of the linear classifier + constant

The phrase table alone is enough; the classifier comes to it where there are texts of the user's own products to learn
from (names of a catalogue, texts of the training packs). No photo's label stands in any number here: the prior is that
of the catalogue's names in which the table finds nothing, the weights are those under which its names are likeliest.
What the confidence is worth was then looked at on real photos, see `benchmarks/real_photos.py`.
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
from skincare.text_reading.evidence import Evidence, EvidenceFinder, scores
from skincare.text_reading.pack_text import TextLine
from skincare.text_reading.phrases import phrases_of
from skincare.text_reading.text_classifier import TextClassifier
from skincare.text_reading.unread_script import unread_script

Table = npt.NDArray[np.float64]
Status = Literal["read", "abstained", "no_text", "other_script"]

# Raise it with every change after which the same text may be read otherwise; the phrase table counts by itself.
VERSION: Final = 1

# Under this weight the 1,126 names of the catalogue are likeliest (3.04); fitted on 192 real photos it would be 2.9.
RULES: Final = 3.0
# Half a vote: on names that would be more (1.1, folds that hold brands out), but packs say much that names do not.
TEXT: Final = 0.5
# That share of its probability it spreads evenly, for what its texts did not hold: it never outvotes plain words.
_UNLEARNT: Final = 0.1
# Of the names in which the table finds nothing (see labels.toml), one added to each label; half a vote, too.
_PRIOR: Final = 0.5
# Less sure answers are withheld. Of the catalogue's names 91 % reach it, and 96 % of those are read rightly.
THRESHOLD: Final = 0.6
EXPECTED_ACCURACY: Final = 0.96

_MOST_LINES: Final = 300
_MOST_WORDS: Final = 8  # shown as the words that decided
_SETTINGS: Final = "reader.json"
_ARRAYS: Final = "reader.npz"

Line = str | TextLine


@dataclass(frozen=True)
class ReaderPrediction:
    """What a pack's text says. `label` only with status `read`; `confidence` is that of the likeliest category."""

    label: str | None
    status: Status
    confidence: float
    log_probabilities: tuple[float, ...]
    evidence: tuple[str, ...]


class Reader:
    """Reads packs by the phrase table and, where it has been fitted, a linear classifier of texts."""

    def __init__(self, labels: Labels, classifier: TextClassifier | None = None, threshold: float = THRESHOLD) -> None:
        self.labels = labels
        self.classifier = classifier
        self.threshold = threshold
        self._finder = EvidenceFinder(phrases_of(labels))
        counts = 1 + np.array(labels.n_unnamed, dtype=np.float64)
        self._prior = _PRIOR * np.log(counts / counts.sum())

    @classmethod
    def fit(cls, labels: Labels, texts: Sequence[str], truths: Sequence[str], threshold: float = THRESHOLD) -> "Reader":
        """Return a reader that has also learnt from texts of products, such as their names; some seconds.

        Raises StageError for fewer than two categories.
        """
        if len(set(truths)) < 2:
            raise StageError("The reader learns from texts of at least two categories")
        return cls(labels, text_classifier.fit(labels, texts, truths), threshold)

    def log_probabilities(self, texts: Sequence[Sequence[Line]]) -> Table:
        """Return (N, n_labels) log-probabilities in the order of the labels; for no text the prior."""
        return np.array([self._read(lines)[0] for lines in texts]).reshape(len(texts), len(self.labels))

    def predict(self, lines: Sequence[Line], other_script: str = "") -> ReaderPrediction:
        """Return what the lines say, in reading order.

        other_script: one that the OCR found and cannot read, see `PackText`; named where the rest does not suffice.
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
            tuple(words)[:_MOST_WORDS],
        )

    def _status(self, lines: Sequence[Line], confidence: float, other_script: str) -> Status:
        texts = [_text(line) for line in lines]
        if confidence >= self.threshold and any(map(_has_letters, texts)):
            return "read"
        if other_script or unread_script(texts):
            return "other_script"
        return "abstained" if any(map(_has_letters, texts)) else "no_text"

    def _read(self, lines: Sequence[Line]) -> tuple[Table, list[Evidence]]:
        """Return (n_labels,) log-probabilities and the evidence, the weightiest first."""
        lines = lines[:_MOST_LINES]
        texts = [_text(line) for line in lines]
        heights = [line.height for line in lines if isinstance(line, TextLine)]
        evidence = self._finder.find(texts, heights if len(heights) == len(lines) else None)
        logits = self._prior + RULES * scores(evidence, self.labels)
        if self.classifier is not None and any(map(_has_letters, texts)):
            learnt = np.exp(self.classifier.log_probabilities(" ".join(texts)))
            logits = logits + TEXT * np.log((1 - _UNLEARNT) * learnt + _UNLEARNT / len(self.labels))
        table = logits - np.logaddexp.reduce(logits)
        return table, sorted(evidence, key=lambda one: -one.weight)

    def save(self, folder: Path, **notes: Any) -> None:
        """Write the reader as plain data: reader.json with `notes`, and reader.npz where it has a classifier."""
        arrays = io.BytesIO()
        named: dict[str, Any] = self.classifier.arrays() if self.classifier else {}
        np.savez_compressed(arrays, **named)
        write_bytes(folder / _ARRAYS, arrays.getvalue())
        # Last: its presence means that the arrays are there.
        settings = {"version": VERSION, "threshold": self.threshold, "expected_accuracy": EXPECTED_ACCURACY,
                    "labels": self.labels.digest, **notes}  # fmt: skip
        write_json(folder / _SETTINGS, settings)

    @classmethod
    def load(cls, folder: Path, labels: Labels) -> "Reader":
        """Return what `save` wrote; StageError where that is no reader of this version and these labels."""
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
    """Return what `Reader.save` noted; empty where there is none that can be read."""
    try:
        found = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(line: Line) -> str:
    return line if isinstance(line, str) else line.text


def _has_letters(text: str) -> bool:
    return any(map(str.isalpha, text))

"""Images outside a dataset and their predictions: what a predictor takes and what it returns.

image = input_image("photos/a.jpg", content)    # bytes in; never raises: bytes that are no image give a reason
(row,) = predictor.predict([image])
row.outcome                                     # "answered", "abstained" or "failed"; counts of them add up
row.to_json()                                   # the object of one JSON line
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np

from skincare import images
from skincare.images import Pixels
from skincare.labels import UNKNOWN, Labels
from skincare.text_reading.extraction import PackReader
from skincare.text_reading.pack_text import PackText

Outcome = Literal["answered", "abstained", "failed"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("answered", "abstained", "failed")

# Statuses of an image that was not classified at all; `reason` says why.
_FAILED: Final = ("unreadable", "failed")


@dataclass(frozen=True)
class InputImage:
    """One image to predict. `file`: path or URL as it was given, for the output only.

    pixels: (H, W, 3) uint8 sRGB, upright; None if the image cannot be used (`reason` says why), or if the predictor
    needs none and `pack` is given. pack: the text on the image, if it was read already; see `PackReader`.
    """

    file: str
    pixels: Pixels | None
    reason: str = ""
    pack: PackText | None = None


@dataclass(frozen=True)
class RankedLabel:
    """A label with its probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class ImagePrediction:
    """The prediction of one image.

    category: the label, or Unknown. probability: of the likeliest label, also below the threshold; None for free text.
    status: how the label was found, or why there is none: `read`, `no_text`, `other_script` (reader), `fused`, `model`
    (fusion), a parse status such as `exact` or `offlist` (model), `abstained` (below the threshold), `unreadable`,
    `failed`. answer: the text that a model generated, or the phrases that the reader found. reason: of a failure.
    parent: the label's parent in the hierarchy; empty without one. top: the likeliest labels, best first.
    text: lines on the pack in reading order, if they were read. product: the structured answer, if that is the target,
    empty for a failure. confidences: field -> probability of its value, also of a value below its threshold, for which
    the product has null.
    """

    file: str
    category: str
    probability: float | None
    status: str
    answer: str = ""
    reason: str = ""
    parent: str = ""
    top: tuple[RankedLabel, ...] = ()
    text: tuple[str, ...] = ()
    product: dict[str, Any] | None = None
    confidences: Mapping[str, float] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """Return `failed` for an unusable image, `answered` if there is a label or a product, else `abstained`."""
        if self.status in _FAILED:
            return "failed"
        has_answer = self.category != UNKNOWN if self.product is None else any(self.product.values())
        return "answered" if has_answer else "abstained"

    def to_json(self) -> dict[str, Any]:
        """Return the object of a JSON line; `product` and `confidences` only if that is the target."""
        row: dict[str, Any] = {
            "file": self.file,
            "outcome": self.outcome,
            "category": None if self.category == UNKNOWN else self.category,
            "parent": self.parent or None,
            "probability": None if self.probability is None else round(self.probability, 4),
            "status": self.status,
            "reason": self.reason,
            "answer": self.answer,
            "top": [{"label": one.label, "probability": round(one.probability, 4)} for one in self.top],
            "text": list(self.text),
        }
        if self.product is None:
            return row
        rounded = {name: round(one, 4) for name, one in self.confidences.items()}
        return {**row, "product": self.product or None, "confidences": rounded}


def input_image(file: str, content: bytes) -> InputImage:
    """Return the decoded image of bytes; with a reason instead of pixels if they are no usable image."""
    try:
        return InputImage(file, images.decode_with_notes(content).pixels)
    except images.BrokenImageError as error:
        return InputImage(file, None, str(error))


def pack_of(image: InputImage, packs: PackReader) -> PackText:
    """Return the text on an image, read in this process unless it was read already."""
    if image.pack is not None:
        return image.pack
    if image.pixels is None:
        return PackText("", image.file, "", packs.name, "unreadable", image.reason)
    return packs.read_pixels(image.pixels)


def failed(file: str, reason: str, status: str = "unreadable") -> ImagePrediction:
    """Return the prediction of an image that cannot be classified."""
    return ImagePrediction(file, UNKNOWN, None, status, reason=reason)


def with_ranking(
    row: ImagePrediction, log_probabilities: Sequence[float], labels: Labels, top_k: int
) -> ImagePrediction:
    """Return the prediction with its `top_k` likeliest labels and the parent of its label."""
    parent = labels.family_of(row.category) if labels.has_families and row.category != UNKNOWN else ""
    probabilities = np.exp(np.asarray(log_probabilities, dtype=np.float64))
    best = np.argsort(-probabilities, kind="stable")[:top_k]
    top = tuple(RankedLabel(labels.names[int(i)], float(probabilities[i])) for i in best)
    return replace(row, parent=parent, top=top)


def abstain_below(row: ImagePrediction, threshold: float | None) -> ImagePrediction:
    """Return the prediction with the category Unknown if its probability is below the threshold."""
    if threshold is None or row.probability is None or row.probability >= threshold:
        return row
    return row if row.category == UNKNOWN else replace(row, category=UNKNOWN, parent="", status="abstained")

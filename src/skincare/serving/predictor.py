"""The predictor inside a worker: bytes in, answers out, with the text's place and the attribution overlay on request.

Imports torch only where a model answers.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from skincare import images
from skincare.images import BrokenImageError
from skincare.inference.image_predictions import ImagePrediction, InputImage, input_image
from skincare.inference.image_predictor import ImagePredictor, PredictorSettings, load_predictor
from skincare.paths import Layout
from skincare.serving.answers import ImageAnswer, TextLine, image_answer
from skincare.serving.worker import Job
from skincare.text_reading.extraction import PackReader

logger = logging.getLogger(__name__)

_MAX_TOP: Final = 20  # as many as a client can get
_OVERLAY_PX: Final = 480
_JPEG_QUALITY: Final = 85


@dataclass(frozen=True)
class LocalPredictorLoader:
    """Loads what predict.py uses with the same settings."""

    settings: PredictorSettings
    layout: Layout
    max_pixels: int

    def __call__(self) -> "LocalPredictor":
        """Load the predictor; raises StageError and what a damaged model folder raises."""
        core = load_predictor(replace(self.settings, top_k=_MAX_TOP), self.layout)
        packs = PackReader(self.settings.ocr, self.layout.ocr_cache) if core.reads_text else None
        return LocalPredictor(core, packs, self.max_pixels)


class LocalPredictor:
    """Predicts with the reader, a model, or their fusion, in this process."""

    def __init__(self, core: ImagePredictor, packs: PackReader | None, max_pixels: int) -> None:
        self.name = public_name(core.name)
        self._core = core
        self._packs = packs
        self._max_pixels = max_pixels

    def predict(self, jobs: Sequence[Job]) -> list[ImageAnswer]:
        """Return one answer per job, in order."""
        inputs = [self._input(job) for job in jobs]
        rows = self._core.predict(inputs)
        return [self._answer(*one) for one in zip(jobs, inputs, rows, strict=True)]

    def _input(self, job: Job) -> InputImage:
        image = decoded(job, self._max_pixels)
        if self._packs is None or image.pixels is None:
            return image
        return replace(image, pack=self._packs.read_pixels(image.pixels))

    def _answer(self, job: Job, image: InputImage, row: ImagePrediction) -> ImageAnswer:
        shown = replace(row, top=row.top[: job.top])
        if not job.detail:
            return image_answer(shown)
        details: dict[str, Any] = {"lines": _lines(image)}
        classifier = getattr(self._core, "classifier", None)
        if classifier is not None:
            details |= _overlay(classifier, image, row)
        return image_answer(shown, **details)


def decoded(job: Job, max_pixels: int) -> InputImage:
    """Return the decoded image of a job; with a reason if it is none or has too many pixels."""
    try:
        width, height = images.displayed_size(job.content)
    except BrokenImageError as error:
        return InputImage(job.name, None, str(error))
    if width * height > max_pixels:
        return InputImage(job.name, None, f"too_many_pixels: {width} x {height}")
    return input_image(job.name, job.content)


def public_name(name: str) -> str:
    """Return a predictor's name with the path of a model folder reduced to the name of the folder."""
    source, comma, rest = name.partition(",")
    return f"{Path(source).name}{comma}{rest}" if "/" in source or "\\" in source else name


def _lines(image: InputImage) -> list[TextLine]:
    if image.pack is None:
        return []
    return [TextLine(text=one.text, confidence=round(one.confidence, 3), box=list(one.box)) for one in image.pack.lines]


def _overlay(classifier: Any, image: InputImage, row: ImagePrediction) -> dict[str, str]:
    """Return the overlay of what speaks for the likeliest label against the second; empty without two labels."""
    if len(row.top) < 2 or image.pixels is None:
        return {}
    from PIL import Image

    from skincare.dataset import hints
    from skincare.html_pages import jpeg_data_uri
    from skincare.inference import saliency, saliency_maps

    best, rival = row.top[0].label, row.top[1].label
    decoded_image = Image.fromarray(image.pixels)
    grids, features = classifier.features.get([decoded_image])
    settings = classifier.hint_settings
    uses_text = settings.kind == "text" and image.pack is not None
    hint = hints.text_hint(image.pack.texts, settings.max_bytes) if uses_text and image.pack else ""
    (found,) = saliency.explain(
        classifier.network, classifier.encoder, grids, features, [best], [rival], [hint],
        by_head=classifier.network.head is not None,
    )  # fmt: skip
    overlay = saliency_maps.overlay(decoded_image, found.maps["gradient"], _OVERLAY_PX)
    return {"overlay": jpeg_data_uri(overlay, _JPEG_QUALITY), "rival": rival}

"""Predict image files with a fine-tuned model, by any of its decoders. Imports torch.

A model that was trained with the pack's text as a hint gets the hint of each image: its text is read by OCR first. A
model that was trained with the metadata of product pages is given no hint, and the log says so.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from skincare.dataset import hints
from skincare.errors import StageError
from skincare.evaluation.calibration import apply_temperature
from skincare.inference.answer_parser import parser_of
from skincare.inference.classifier import Classifier, DecodedImage
from skincare.inference.decoders import DecoderOutput
from skincare.inference.image_predictions import ImagePrediction, open_image
from skincare.labels import UNKNOWN, Labels
from skincare.modeling.settings import DecoderName
from skincare.text_reading.extraction import PackReader
from skincare.text_reading.pack_text import PackText

logger = logging.getLogger(__name__)


class ModelPredictor:
    """Predicts with a model; the answer column holds the text that it generated.

    `decoder`: by default the classification head if there is one, else rank if `needs_probabilities`, else generate.
    `packs`: reads the text of packs for a model that was trained with it as a hint; StageError for such a model
    without `packs`.
    """

    def __init__(
        self, classifier: Classifier, decoder: DecoderName | None = None, temperature: float = 1.0, *,
        needs_probabilities: bool = False, packs: PackReader | None = None,
    ) -> None:  # fmt: skip
        self._classifier = classifier
        self._temperature = temperature
        if decoder is None:
            without_head: DecoderName = "rank" if needs_probabilities else "generate"
            decoder = without_head if classifier.network.head is None else "head"
        self._decoder = classifier.decoder(decoder)
        self.name = f"{classifier.source}, decoder {decoder}"
        self._packs = packs
        kind = classifier.hint_settings.kind
        self._reads_text = kind == "text"
        if self._reads_text and packs is None:
            raise StageError(
                f"{classifier.source} was trained with the text of packs as a hint; it needs an OCR engine"
            )
        if kind == "metadata":
            logger.warning(
                "%s was trained with metadata of product pages as a hint, which an image does not have: predicting "
                "without hints", classifier.source,
            )  # fmt: skip

    def __call__(self, files: Sequence[Path]) -> list[ImagePrediction]:
        """Return one prediction per file, in order."""
        packs = self._packs.read(files) if self._packs and self._reads_text else None
        return [
            found if isinstance(found, ImagePrediction) else self._prediction(file, found)
            for file, found in zip(files, self.outputs(files, packs), strict=True)
        ]

    def outputs(
        self, files: Sequence[Path], packs: Sequence[PackText] | None
    ) -> list[DecoderOutput | ImagePrediction]:  # fmt: skip
        """Return the model's output for each file, in order; for a file that is no image a prediction with the reason.

        `packs`: the text on each file's image, for a model that was trained with it as a hint.
        """
        unreadable: dict[int, ImagePrediction] = {}

        def queries() -> Iterator[DecodedImage]:
            for i, file in enumerate(files):
                opened = open_image(file)
                if isinstance(opened, ImagePrediction):
                    unreadable[i] = opened
                else:
                    yield DecodedImage(Image.fromarray(opened), self._hint(packs[i]) if packs else "")

        # A few files are done before a progress bar could be read.
        title = "predict" if len(files) > 16 else None
        outputs = list(self._classifier.outputs(queries(), self._decoder, n_queries=len(files), title=title))
        found = iter(one.answer for one in outputs)
        return [unreadable[i] if i in unreadable else next(found) for i in range(len(files))]

    def _hint(self, pack: PackText) -> str:
        return hints.text_hint(pack.texts, self._classifier.hint_settings.max_bytes) if self._reads_text else ""

    def _prediction(self, file: Path, output: DecoderOutput) -> ImagePrediction:
        labels = self._classifier.labels
        parsed = parser_of(labels).parse(output.text, is_finished=output.is_finished)
        probability = _probability(output, parsed.category, self._temperature, labels)
        return ImagePrediction(str(file), parsed.category or UNKNOWN, probability, parsed.status, output.text)


def _probability(output: DecoderOutput, category: str | None, temperature: float, labels: Labels) -> float | None:
    if category is None or not output.log_probabilities:
        return None
    scaled = apply_temperature(np.array([output.log_probabilities]), temperature)
    return float(np.exp(scaled[0, labels.index(category)]))

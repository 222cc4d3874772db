"""What the predictors share that fuse a model with the reader of packs. Imports torch."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from skincare.inference.decoder_output import DecoderOutput
from skincare.inference.image_predictions import ImagePrediction, InputImage, pack_of
from skincare.inference.model_predictor import ModelPredictor
from skincare.text_reading.extraction import PackReader
from skincare.text_reading.pack_text import PackText

logger = logging.getLogger(__name__)


class BaseFusedPredictor(ABC):
    """Reads the text of each pack, runs the model with it, and lets a subclass fuse model and reader.

    fitted_ocr: name of the OCR engine that the fusion was fitted with; another one is logged as a warning.
    """

    reads_text = True
    needs_pixels = True
    threshold: float | None = None

    def __init__(self, model: ModelPredictor, packs: PackReader, fitted_ocr: object) -> None:
        if packs.name != fitted_ocr:
            logger.warning("The fusion was fitted with another OCR engine: %s", fitted_ocr)
        self.name = f"{model.name}, fused with the reader, {packs.name}"
        self.classifier = model.classifier
        self.labels = model.labels
        self.packs = packs
        self._model = model

    def predict(self, images: Sequence[InputImage]) -> list[ImagePrediction]:
        """Return one prediction per image, in order."""
        packs = [pack_of(image, self.packs) for image in images]
        outputs = self._model.outputs([replace(image, pack=pack) for image, pack in zip(images, packs, strict=True)])
        return [
            found if isinstance(found, ImagePrediction) else self._fuse(image.file, pack, found)
            for image, pack, found in zip(images, packs, outputs, strict=True)
        ]

    @abstractmethod
    def _fuse(self, file: str, pack: PackText, output: DecoderOutput) -> ImagePrediction:
        """Return the prediction from the text of an image and the model's output for it."""

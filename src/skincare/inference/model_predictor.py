"""Predicts images with a fine-tuned model, by any of its decoders. Importing this imports torch.

A model that learnt with the pack's text as a hint is given that of the image: the OCR reads it first. What a shop's
page says of a product no image tells; a model that learnt with that is asked without, and the log says so.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from skincare.answering import answers
from skincare.answering.decoders import Answer, DecoderName, make_decoder
from skincare.categories import CATEGORIES, UNKNOWN
from skincare.dataset import hints
from skincare.evaluation.calibration import with_temperature
from skincare.images import Pixels as Array
from skincare.inference.image_predictions import Row, open_image
from skincare.modelling.batches import Pixels, PromptEncoder
from skincare.modelling.model import default_device, load_model, load_processor
from skincare.modelling.recogniser import Recogniser
from skincare.text_reading.ocr import EngineName, OcrEngine, make_engine
from skincare.text_reading.pack_text import TextLine

logger = logging.getLogger(__name__)


class Prompt(NamedTuple):
    """What is asked about one image: its patches, and the hint that comes with the question."""

    pixels: Pixels
    hint: str


class ModelPredictor:
    """Asks a model. The answer column holds its words."""

    def __init__(
        self, source: str, decoder: DecoderName | None, temperature: float, *, needs_probabilities: bool,
        ocr: EngineName | OcrEngine = "rapidocr",
    ) -> None:  # fmt: skip
        self._encoder = PromptEncoder(load_processor(source))
        self._recogniser = Recogniser(load_model(source, default_device()).requires_grad_(False))
        self._recogniser.load_head(Path(source))
        self._temperature = temperature
        if decoder is None:
            without_head: DecoderName = "rank" if needs_probabilities else "generate"
            decoder = without_head if self._recogniser.head is None else "head"
        self._decoder = make_decoder(decoder, self._recogniser, self._encoder)
        self.name = f"{source}, decoder {decoder}"
        self._hints = hints.read_settings(Path(source))
        self._engine: OcrEngine | None = None
        if self._hints.kind == "text":
            self._engine = make_engine(ocr) if isinstance(ocr, str) else ocr
        elif self._hints.kind != "none":
            logger.warning(
                "%s learnt with what the shop's pages say of the products, which no image tells: it is asked without",
                source,
            )

    def __call__(self, files: Sequence[Path]) -> list[Row]:
        """Return one row per file, in order; they go through the model as one batch."""
        rows: dict[Path, Row] = {}
        prompts: dict[Path, Prompt] = {}
        for file in files:
            image = open_image(file)
            if isinstance(image, Row):
                rows[file] = image
            else:
                prompts[file] = self.prompt(image)
        for file, answer in zip(prompts, self.answers(list(prompts.values())), strict=True):
            parsed = answers.parse(answer.text, is_finished=answer.is_finished)
            probability = _probability(answer, parsed.category, self._temperature)
            rows[file] = Row(str(file), parsed.category or UNKNOWN, probability, parsed.status, answer.text)
        return [rows[file] for file in files]

    def prompt(self, image: Array, lines: Sequence[TextLine] | None = None) -> Prompt:
        """Return what the model is asked about an image; `lines`: what stands on it, where that is read already."""
        hint = ""
        if self._engine is not None:
            lines = self._engine.read(image) if lines is None else lines
            hint = hints.text_hint((line.text for line in lines), self._hints.max_bytes)
        return Prompt(self._encoder.pixels(Image.fromarray(image)), hint)

    def answers(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """Return the model's answer to each."""
        if not prompts:
            return []
        pixels = [one.pixels for one in prompts]
        states = self._recogniser.picture_states(pixels)
        return self._decoder([one.grid for one in pixels], states, [one.hint for one in prompts])


def _probability(answer: Answer, category: str | None, temperature: float) -> float | None:
    if category is None or not answer.log_probabilities:
        return None
    scaled = with_temperature(np.array([answer.log_probabilities]), temperature)
    return float(np.exp(scaled[0, CATEGORIES.index(category)]))

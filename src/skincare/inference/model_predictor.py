"""Predicts images with a fine-tuned model, by any of its decoders. Importing this imports torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from skincare import images
from skincare.answering import answers
from skincare.answering.decoders import Answer, DecoderName, make_decoder
from skincare.categories import CATEGORIES, UNKNOWN
from skincare.evaluation.calibration import with_temperature
from skincare.inference.image_predictions import Row
from skincare.modelling.batches import PromptEncoder
from skincare.modelling.model import default_device, load_model, load_processor
from skincare.modelling.recogniser import Recogniser


class ModelPredictor:
    """Asks a model. The answer column holds its words."""

    def __init__(
        self, source: str, decoder: DecoderName | None, temperature: float, *, needs_probabilities: bool
    ) -> None:
        self._encoder = PromptEncoder(load_processor(source))
        self._recogniser = Recogniser(load_model(source, default_device()).requires_grad_(False))
        self._recogniser.load_head(Path(source))
        self._temperature = temperature
        if decoder is None:
            without_head: DecoderName = "rank" if needs_probabilities else "generate"
            decoder = without_head if self._recogniser.head is None else "head"
        self._decoder = make_decoder(decoder, self._recogniser, self._encoder)
        self.name = f"{source}, decoder {decoder}"

    def __call__(self, files: Sequence[Path]) -> list[Row]:
        """Return one row per file, in order; they go through the model as one batch."""
        rows: dict[Path, Row] = {}
        pixels = {}
        for file in files:
            try:
                pixels[file] = self._encoder.pixels(images.decode(file.read_bytes()))
            except (OSError, ValueError) as error:
                rows[file] = Row(str(file), UNKNOWN, None, "unreadable", str(error))
        if pixels:
            states = self._recogniser.picture_states(list(pixels.values()))
            found = self._decoder([one.grid for one in pixels.values()], states)
            for file, answer in zip(pixels, found, strict=True):
                parsed = answers.parse(answer.text, is_finished=answer.is_finished)
                probability = _probability(answer, parsed.category, self._temperature)
                rows[file] = Row(str(file), parsed.category or UNKNOWN, probability, parsed.status, answer.text)
        return [rows[file] for file in files]


def _probability(answer: Answer, category: str | None, temperature: float) -> float | None:
    if category is None or not answer.log_probabilities:
        return None
    scaled = with_temperature(np.array([answer.log_probabilities]), temperature)
    return float(np.exp(scaled[0, CATEGORIES.index(category)]))

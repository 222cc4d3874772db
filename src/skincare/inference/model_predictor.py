"""Predicts images with a fine-tuned model, by any of its decoders. Importing this imports torch.

A model that learnt with the pack's text as a hint is given that of the image: the OCR reads it first. What a shop's
page says of a product no image tells; a model that learnt with that is asked without, and the log says so.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from skincare.dataset import hints
from skincare.errors import StageError
from skincare.evaluation.calibration import with_temperature
from skincare.inference.answer_parser import parser_of
from skincare.inference.decoders import Answer, DecoderName, make_decoder
from skincare.inference.image_predictions import Row, open_image
from skincare.labels import UNKNOWN, Labels
from skincare.modeling.batches import PromptEncoder
from skincare.modeling.model import default_device, load_model, load_processor
from skincare.modeling.recogniser import Recogniser
from skincare.text_reading.extraction import PackReader
from skincare.text_reading.pack_text import PackText

logger = logging.getLogger(__name__)


class ModelPredictor:
    """Predicts with a model. The answer column holds its words.

    packs: reads the text of packs for a model that learnt with it as a hint. Raises StageError for such a model
    without `packs`.
    """

    def __init__(
        self, source: str, labels: Labels, decoder: DecoderName | None, temperature: float, *,
        needs_probabilities: bool, batch_size: int = 16, packs: PackReader | None = None,
    ) -> None:  # fmt: skip
        self._encoder = PromptEncoder(load_processor(source), labels)
        self._recogniser = Recogniser(load_model(source, default_device()).requires_grad_(False))
        self._recogniser.load_head(Path(source), len(labels))
        self._temperature = temperature
        self._batch_size = batch_size
        if decoder is None:
            without_head: DecoderName = "rank" if needs_probabilities else "generate"
            decoder = without_head if self._recogniser.head is None else "head"
        self._decoder = make_decoder(decoder, self._recogniser, self._encoder)
        self.name = f"{source}, decoder {decoder}"
        self._hints = hints.read_settings(Path(source))
        self._packs = packs
        if self._hints.kind == "text" and packs is None:
            raise StageError(f"{source} learnt with the text of packs as a hint; it needs an OCR engine")
        if self._hints.kind == "metadata":
            logger.warning(
                "%s learnt with what the shop's pages say of the products, which no image tells: predicted without",
                source,
            )

    def __call__(self, files: Sequence[Path]) -> list[Row]:
        """Return one row per file, in order."""
        packs = self._packs.read(files) if self._packs and self._hints.kind == "text" else None
        return [
            found if isinstance(found, Row) else self._row(file, found)
            for file, found in zip(files, self.answers(files, packs), strict=True)
        ]

    def answers(self, files: Sequence[Path], packs: Sequence[PackText] | None) -> Iterator[Answer | Row]:
        """Yield the model's answer for each file, in order; a row for a file that is no image.

        packs: the text on each file's image, for a model that learnt with it as a hint.
        """
        said = [self._hint(pack) for pack in packs] if packs else [""] * len(files)
        with tqdm(total=len(files), unit="image", disable=None if len(files) > self._batch_size else True) as bar:
            for start in range(0, len(files), self._batch_size):
                some = slice(start, start + self._batch_size)
                yield from self._batch(files[some], said[some])
                bar.update(len(files[some]))

    def _hint(self, pack: PackText) -> str:
        return hints.text_hint(pack.texts, self._hints.max_bytes) if self._hints.kind == "text" else ""

    def _batch(self, files: Sequence[Path], said: Sequence[str]) -> list[Answer | Row]:
        opened = [open_image(file) for file in files]
        images = [(one, hint) for one, hint in zip(opened, said, strict=True) if not isinstance(one, Row)]
        pixels = [self._encoder.pixels(Image.fromarray(image)) for image, _ in images]
        found: Iterator[Answer] = iter(())
        if pixels:
            features = self._recogniser.vision_features(pixels)
            found = iter(self._decoder([one.grid for one in pixels], features, [hint for _, hint in images]))
        return [one if isinstance(one, Row) else next(found) for one in opened]

    def _row(self, file: Path, answer: Answer) -> Row:
        parsed = parser_of(self._encoder.labels).parse(answer.text, is_finished=answer.is_finished)
        probability = _probability(answer, parsed.category, self._temperature, self._encoder.labels)
        return Row(str(file), parsed.category or UNKNOWN, probability, parsed.status, answer.text)


def _probability(answer: Answer, category: str | None, temperature: float, labels: Labels) -> float | None:
    if category is None or not answer.log_probabilities:
        return None
    scaled = with_temperature(np.array([answer.log_probabilities]), temperature)
    return float(np.exp(scaled[0, labels.index(category)]))

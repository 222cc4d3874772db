"""Asking the model about pictures: one prediction per picture, and the loss on the true answers."""

import logging
import time
from collections.abc import Iterator, Sequence

import torch
from tqdm import tqdm

from skincare import answers
from skincare.batches import Grid, PromptEncoder
from skincare.chat import Example
from skincare.pictures import PictureStates
from skincare.predictions import Prediction
from skincare.recogniser import Recogniser

logger = logging.getLogger(__name__)

MAX_NEW_TOKENS = 30


def predict(
    pictures: PictureStates, examples: Sequence[Example], split: str, batch_size: int, *, show_progress: bool = True
) -> list[Prediction]:
    """Answer about each example greedily and parse the answer; the result is sorted by image id."""
    predictions = []
    with tqdm(total=len(examples), unit="picture", desc=split, disable=None if show_progress else True) as bar:
        for some in _batches(examples, batch_size):
            started = time.perf_counter()
            grids, states = pictures.get([example.image for example in some])
            texts = answer(pictures.recogniser, pictures.encoder, grids, states)
            latency_s = (time.perf_counter() - started) / len(some)
            predictions += [
                _prediction(example, split, *text, latency_s) for example, text in zip(some, texts, strict=True)
            ]
            bar.update(len(some))
    return sorted(predictions, key=lambda prediction: prediction.image_id)


def answer(
    recogniser: Recogniser, encoder: PromptEncoder, grids: Sequence[Grid], states: Sequence[torch.Tensor]
) -> list[tuple[str, int, bool]]:
    """Return for each picture the model's text, the number of its tokens and whether it ended by itself."""
    batch = encoder.batch(grids, padding_side="left").to(recogniser.device)
    generated = recogniser.generate(encoder, batch, states, MAX_NEW_TOKENS)
    return [(encoder.decode(one.tokens), len(one.tokens), one.is_finished) for one in generated]


@torch.no_grad()
def mean_loss(pictures: PictureStates, examples: Sequence[Example], batch_size: int) -> float:
    """Return the mean over examples of the mean negative log-likelihood per token of the true answer, in nats."""
    total = 0.0
    for some in _batches(examples, batch_size):
        grids, states = pictures.get([example.image for example in some])
        batch = pictures.encoder.batch(grids, [example.category for example in some])
        total += pictures.recogniser(batch.to(pictures.recogniser.device), states).sum().item()
    return total / len(examples)


def _batches(examples: Sequence[Example], batch_size: int) -> Iterator[Sequence[Example]]:
    for start in range(0, len(examples), batch_size):
        yield examples[start : start + batch_size]


def _prediction(
    example: Example, split: str, text: str, n_new_tokens: int, is_finished: bool, latency_s: float
) -> Prediction:
    parsed = answers.parse(text, is_finished=is_finished)
    return Prediction(
        image_id=example.image_id,
        product_id=example.product_id,
        file=example.image,
        split=split,
        truth=example.category,
        decoder="generate",
        text=text,
        n_new_tokens=n_new_tokens,
        is_finished=is_finished,
        category=parsed.category,
        status=parsed.status,
        candidates=parsed.candidates,
        latency_s=round(latency_s, 6),
    )

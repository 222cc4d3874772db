"""Asking the model about pictures: one prediction per picture, and the loss on the true answers."""

import time
from collections.abc import Iterator, Sequence

import torch
from tqdm import tqdm

from skincare import answers, objectives
from skincare.chat import Example
from skincare.decoders import Answer, Decoder
from skincare.objectives import HeadUse
from skincare.pictures import PictureStates
from skincare.predictions import Prediction


def predict(
    pictures: PictureStates, decoder: Decoder, examples: Sequence[Example], split: str, batch_size: int, *,
    show_progress: bool = True,
) -> list[Prediction]:  # fmt: skip
    """Answer about each example and parse the answer; the result is sorted by image id."""
    predictions = []
    with tqdm(total=len(examples), unit="picture", desc=split, disable=None if show_progress else True) as bar:
        for some in _batches(examples, batch_size):
            started = time.perf_counter()
            found = decoder(*pictures.get([example.image for example in some]))
            latency_s = (time.perf_counter() - started) / len(some)
            predictions += [
                _prediction(example, split, decoder.name, answer, latency_s)
                for example, answer in zip(some, found, strict=True)
            ]
            bar.update(len(some))
    return sorted(predictions, key=lambda prediction: prediction.image_id)


@torch.no_grad()
def total_loss(pictures: PictureStates, head_use: HeadUse, examples: Sequence[Example], batch_size: int) -> float:
    """Return the sum over examples of what the recipe minimises, in nats."""
    total = 0.0
    for some in _batches(examples, batch_size):
        grids, states = pictures.get([example.image for example in some])
        categories = [example.category for example in some]
        total += (
            objectives.losses(pictures.recogniser, pictures.encoder, head_use, grids, states, categories).sum().item()
        )
    return total


def _batches(examples: Sequence[Example], batch_size: int) -> Iterator[Sequence[Example]]:
    for start in range(0, len(examples), batch_size):
        yield examples[start : start + batch_size]


def _prediction(example: Example, split: str, decoder: str, answer: Answer, latency_s: float) -> Prediction:
    parsed = answers.parse(answer.text, is_finished=answer.is_finished)
    return Prediction(
        image_id=example.image_id,
        product_id=example.product_id,
        file=example.image,
        split=split,
        truth=example.category,
        decoder=decoder,
        text=answer.text,
        n_new_tokens=answer.n_new_tokens,
        is_finished=answer.is_finished,
        category=parsed.category,
        status=parsed.status,
        candidates=parsed.candidates,
        log_probabilities=answer.log_probabilities,
        latency_s=round(latency_s, 6),
    )

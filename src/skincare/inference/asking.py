"""Asking the model about images: one prediction per image, and the loss on the true answers."""

import time
from collections.abc import Iterator, Sequence

import torch
from tqdm import tqdm

from skincare.dataset.chat import Example
from skincare.inference.decoders import Answer, Decoder
from skincare.inference.prediction_cache import Entry, Journal
from skincare.inference.predictions import Prediction, parsed
from skincare.labels import Labels
from skincare.modeling.out_of_memory import Passes
from skincare.modeling.settings import HeadUse
from skincare.modeling.vision_features import VisionFeatures
from skincare.training import objectives


def predict(
    images: VisionFeatures, decoder: Decoder, examples: Sequence[Example], split: str, passes: Passes, *,
    journal: Journal | None = None, show_progress: bool = True,
) -> list[Prediction]:  # fmt: skip
    """Answer about each example and parse the answer; the result is sorted by image id.

    Where a pass runs out of memory, what others have answered is kept.

    With a journal each batch is written down when it is answered, and not asked again. A batch is taken from it as a
    whole or asked as a whole, so that an evaluation which was killed ends with the bits of one which was not.
    """
    predictions: list[Prediction] = []
    with tqdm(total=len(examples), unit="image", desc=split, disable=None if show_progress else True) as bar:
        for some in _batches(examples, passes.size):
            hashes = [images.sha256(example.image) for example in some]
            keys = [journal.key(sha256, one.hint) if journal else "" for sha256, one in zip(hashes, some, strict=True)]
            entries = _entries(images, decoder, some, keys, journal, passes)
            for example, entry, image_sha256, key in zip(some, entries, hashes, keys, strict=True):
                predictions.append(
                    _prediction(example, split, decoder.name, entry, image_sha256, key, images.encoder.labels)
                )
            bar.update(len(some))
    return sorted(predictions, key=lambda prediction: prediction.image_id)


def _entries(
    images: VisionFeatures, decoder: Decoder, examples: Sequence[Example], keys: Sequence[str],
    journal: Journal | None, passes: Passes,
) -> list[Entry]:  # fmt: skip
    """Return the kept answers of a batch where there are all, else ask and keep them."""
    kept = [entry for key in keys if journal and (entry := journal.get(key))]
    if len(kept) == len(examples):
        return kept
    started = time.perf_counter()

    def answer(some: Sequence[Example]) -> list[Answer]:
        return decoder(*images.get([example.image for example in some]), [example.hint for example in some])

    found = [answer for part in passes.over(examples, answer) for answer in part]
    latency_s = round((time.perf_counter() - started) / len(examples), 6)
    entries = [Entry(answer, latency_s) for answer in found]
    if journal:
        journal.keep((key, entry) for key, entry in zip(keys, entries, strict=True) if not journal.get(key))
    return entries


@torch.no_grad()
def total_loss(images: VisionFeatures, head_use: HeadUse, examples: Sequence[Example], passes: Passes) -> float:
    """Return the sum over examples of what the recipe minimises, in nats."""

    def loss(some: Sequence[Example]) -> float:
        grids, states = images.get([example.image for example in some])
        categories, hints = [example.category for example in some], [example.hint for example in some]
        losses = objectives.losses(images.recogniser, images.encoder, head_use, grids, states, categories, hints)
        return losses.sum().item()

    return sum(passes.over(examples, loss), 0.0)


def inference_passes(batch_size: int) -> Passes:
    """Return passes of `batch_size` images; where that is too many for the memory, of fewer."""
    return Passes(batch_size, "inference", "allow fewer visual tokens (--max-tokens), or free memory of the device")


def _batches(examples: Sequence[Example], batch_size: int) -> Iterator[Sequence[Example]]:
    for start in range(0, len(examples), batch_size):
        yield examples[start : start + batch_size]


def _prediction(
    example: Example, split: str, decoder: str, entry: Entry, image_sha256: str, cache_key: str, labels: Labels
) -> Prediction:
    answer = entry.answer
    return parsed(
        Prediction(
            image_id=example.image_id,
            product_id=example.product_id,
            file=example.image,
            split=split,
            truth=example.category,
            decoder=decoder,
            text=answer.text,
            n_new_tokens=answer.n_new_tokens,
            is_finished=answer.is_finished,
            category=None,
            status="",
            candidates=(),
            log_probabilities=answer.log_probabilities,
            latency_s=entry.latency_s,
            image_sha256=image_sha256,
            cache_key=cache_key,
            hint=example.hint,
        ),
        labels,
    )

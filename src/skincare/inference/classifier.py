"""The model as one object: `Classifier.load(source, labels, files).predict(examples, split, decoder)`.

It owns the network, the prompt encoder, the cache of vision features and the prediction cache.
"""

import copy
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from PIL.Image import Image
from tqdm import tqdm

from skincare.dataset import hints
from skincare.dataset.chat import Example
from skincare.dataset.image_files import ImageFiles
from skincare.inference import decoders
from skincare.inference.decoder_output import DecoderOutput
from skincare.inference.decoders import Decoder, make_decoder
from skincare.inference.model_identity import model_identity
from skincare.inference.prediction_cache import CachedOutput, PredictionCache
from skincare.inference.predictions import Prediction, parsed
from skincare.labels import Labels, check_same_labels
from skincare.modeling import losses
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.label_smoothing import LabelSmoothing
from skincare.modeling.loading import default_device, load_model, load_processor
from skincare.modeling.losses import LossInputs
from skincare.modeling.out_of_memory import Passes
from skincare.modeling.prompt_encoder import Grid, PromptEncoder
from skincare.modeling.settings import DecoderName, Dtype, HeadUse, PixelLimits
from skincare.modeling.vision_features import VisionFeatures
from skincare.prompts import target_of


class Query(Protocol):
    """What is classified: an image, by its path in the dataset or decoded, and its hint."""

    @property
    def image(self) -> str | Image:
        """Return the image."""
        ...

    @property
    def hint(self) -> str:
        """Return the hint; empty without one."""
        ...


@dataclass(frozen=True)
class DecodedImage:
    """A query about an image that is in no dataset; its predictions are not cached."""

    image: Image
    hint: str = ""


class Classifier:
    """A model that classifies images. It predicts `batch_size` images per pass, fewer once memory has run out."""

    def __init__(
        self, network: CachedVLM, encoder: PromptEncoder, files: ImageFiles | Path, *,
        vision_cache: Path | None = None, prediction_cache: Path | None = None, batch_size: int = 16,
        source: str | Path = "",
    ) -> None:  # fmt: skip
        self.network = network
        self.encoder = encoder
        self.features = VisionFeatures(network, encoder, files, vision_cache)
        self.source = source
        self._prediction_cache = prediction_cache
        self._passes = Passes(
            batch_size, "inference", "allow fewer visual tokens (--max-tokens), or free memory of the device"
        )

    @classmethod
    def load(
        cls, source: str | Path, labels: Labels, files: ImageFiles | Path, *, limits: PixelLimits | None = None,
        dtype: Dtype = "auto", n_uncached_blocks: int = 1, **options: Any,
    ) -> Self:  # fmt: skip
        """Load a folder or a model of the hub, with its classification head if it has one; all of it is frozen.

        Without `limits` it keeps the processor's own. `n_uncached_blocks` vision blocks are left out of the cached
        features: with 1, training of the reference recipe and the trained model share them. `options` are those of the
        constructor. Raises MissingInputError and StageError as `load_model`, StageError for a model of other labels.
        """
        check_same_labels(Path(source), labels)
        encoder = PromptEncoder(load_processor(source, limits), labels)
        model = load_model(source, default_device(), dtype=dtype, accepts_quantised=True).requires_grad_(False)
        network = CachedVLM(model, n_uncached_blocks)
        network.load_head(Path(source), len(labels))
        return cls(network, encoder, files, source=source, **options)

    @property
    def labels(self) -> Labels:
        """Return the labels that the model chooses from."""
        return self.encoder.labels

    @property
    def device(self) -> torch.device:
        """Return the device of the weights."""
        return self.network.device

    @cached_property
    def hint_settings(self) -> hints.HintSettings:
        """Return which hints the model was trained with."""
        return hints.read_settings(Path(self.source))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Return everything that an output depends on except image, hint and decoder."""
        return model_identity(self.network, self.encoder)

    def decoder(self, name: DecoderName) -> Decoder:
        """Return a decoder of this model; raises StageError if the model lacks what it needs."""
        return make_decoder(name, self.network, self.encoder)

    def with_label_order(self, names: Sequence[str]) -> "Classifier":
        """Return this model with a prompt that lists the labels in another order."""
        other = copy.copy(self)
        other.encoder = PromptEncoder(self.encoder.processor, self.labels, names)
        other.__dict__.pop("identity", None)
        return other

    def predict(
        self, examples: Sequence[Example], split: str, decoder: Decoder, *, show_progress: bool = True
    ) -> list[Prediction]:
        """Return a prediction for each example, sorted by image id.

        Batches hold prompts of similar length, so that few are padded. Outputs of a loaded model are appended to the
        prediction cache batch by batch. A batch is taken from the cache as a whole or computed as a whole, so that an
        interrupted evaluation ends with the bits of an uninterrupted one.
        """
        cache, examples = self._cache_of(decoder), self._by_length(examples)
        outputs = self.outputs(
            examples, decoder, cache=cache, n_queries=len(examples), title=split if show_progress else None
        )  # fmt: skip
        found = [
            self._prediction(example, split, decoder, output, self._key(cache, example))
            for example, output in zip(examples, outputs, strict=True)
        ]
        return sorted(found, key=lambda one: one.image_id)

    def outputs(
        self, queries: Iterable[Query], decoder: Decoder, *, cache: PredictionCache | None = None,
        n_queries: int | None = None, title: str | None = None,
    ) -> Iterator[CachedOutput]:  # fmt: skip
        """Yield the decoder's output for each query, in order; with a progress bar if there is a title."""
        remaining = iter(queries)
        with tqdm(total=n_queries, unit="image", desc=title, disable=None if title else True) as bar:
            while batch := list(islice(remaining, self._passes.size)):
                yield from self._batch_outputs(batch, decoder, cache)
                bar.update(len(batch))

    def _batch_outputs(
        self, batch: Sequence[Query], decoder: Decoder, cache: PredictionCache | None
    ) -> list[CachedOutput]:
        keys = [self._key(cache, one) for one in batch]
        cached = [output for key in keys if cache and (output := cache.get(key))]
        if len(cached) == len(batch):
            return cached
        started = time.perf_counter()

        def decode(queries: Sequence[Query]) -> list[DecoderOutput]:
            return decoder(*self.features.get([one.image for one in queries]), [one.hint for one in queries])

        found = [output for part in self._passes.over(batch, decode) for output in part]
        latency_s = round((time.perf_counter() - started) / len(batch), 6)
        outputs = [CachedOutput(output, latency_s) for output in found]
        if cache:
            cache.add((key, output) for key, output in zip(keys, outputs, strict=True) if not cache.get(key))
        return outputs

    def _cache_of(self, decoder: Decoder) -> PredictionCache | None:
        """Return the prediction cache of a loaded model; weights in training change, so their outputs have no key."""
        if not self.source:
            return None
        identity = {**self.identity, "decoder": decoder.name, "decoder_version": decoders.VERSION}
        return PredictionCache(identity, self._prediction_cache)

    def _key(self, cache: PredictionCache | None, query: Query) -> str:
        if cache is None or not isinstance(query.image, str):
            return ""
        return cache.key(self.features.sha256(query.image), query.hint)

    def _prediction(
        self, example: Example, split: str, decoder: Decoder, cached: CachedOutput, cache_key: str
    ) -> Prediction:
        output = cached.answer
        prediction = Prediction(
            image_id=example.image_id,
            product_id=example.product_id,
            file=example.image,
            split=split,
            truth=example.category,
            decoder=decoder.name,
            text=output.text,
            n_new_tokens=output.n_new_tokens,
            is_finished=output.is_finished,
            category=None,
            status="",
            candidates=(),
            log_probabilities=output.log_probabilities,
            latency_s=cached.latency_s,
            image_sha256=self.features.sha256(example.image),
            cache_key=cache_key,
            hint=example.hint,
            target=target_of(self.labels),
            field_log_probabilities=dict(output.field_log_probabilities),
        )
        return parsed(prediction, self.labels)

    def losses(
        self, head_use: HeadUse, grids: Sequence[Grid], features: Sequence[torch.Tensor], categories: Sequence[str],
        hints: Sequence[str] = (), answers: Sequence[str] = (), smoothing: LabelSmoothing | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """Return the (B,) losses of images in nats, given by their vision features."""
        return losses.example_losses(
            self.network, self.encoder, head_use, grids, features, categories, hints, answers, smoothing
        )  # fmt: skip

    def loss_inputs(
        self, head_use: HeadUse, grids: Sequence[Grid], categories: Sequence[str], hints: Sequence[str],
        answers: Sequence[str], smoothing: LabelSmoothing | None = None,
    ) -> LossInputs:  # fmt: skip
        """Return the prompts and targets of images on the CPU."""
        return losses.loss_inputs(self.network, self.encoder, head_use, grids, categories, hints, answers, smoothing)

    def input_losses(self, head_use: HeadUse, inputs: LossInputs, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the (B,) losses of prompts in nats, for the vision features of their images."""
        return losses.input_losses(self.network, head_use, inputs, features)

    @torch.no_grad()
    def total_loss(self, head_use: HeadUse, examples: Sequence[Example]) -> float:
        """Return the sum of the losses of examples, in nats."""

        def loss(batch: Sequence[Example]) -> float:
            grids, features = self.features.get([example.image for example in batch])
            categories, hints = [example.category for example in batch], [example.hint for example in batch]
            answers = [example.answer for example in batch]
            return self.losses(head_use, grids, features, categories, hints, answers).sum().item()

        return sum(self._passes.over(self._by_length(examples), loss), 0.0)

    def _by_length(self, examples: Sequence[Example]) -> list[Example]:
        """Return the examples sorted by the number of tokens of their prompts, the longest first."""

        def length(example: Example) -> int:
            return self.encoder.row_length(self.features.n_visual_tokens(example.image), example.hint)

        return sorted(examples, key=length, reverse=True)

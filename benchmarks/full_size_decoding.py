"""Decoding of structured answers by a model of the true width of Qwen2-VL-2B, and its times, for benchmarks."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from full_size import full_size_model
from qwen_vocabulary import processor
from skincare.inference import structured_decoder
from skincare.inference.decoder_output import DecoderOutput
from skincare.inference.decoders import make_decoder
from skincare.labels import skincare_labels
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.json_constraint import ConstrainedRows
from skincare.modeling.loading import default_device
from skincare.modeling.prompt_encoder import Grid, Patches, PromptEncoder
from skincare.prompts import labels_for

# 128, 121, 96 and 64 visual tokens: rows of different lengths, which are padded on the left.
_GRIDS: Final[tuple[Grid, ...]] = ((1, 16, 32), (1, 22, 22), (1, 16, 24), (1, 16, 16))


class Decoding:
    """A model of the true width, a batch of images of different sizes, and the decoders."""

    def __init__(
        self, vocabulary: Path, n_layers: int, n_vision_blocks: int, dtype: torch.dtype = torch.bfloat16
    ) -> None:
        self.encoder = PromptEncoder(processor(vocabulary), labels_for("product", skincare_labels()))
        model = full_size_model(dtype, default_device(), self.encoder, n_layers, n_vision_blocks)
        self.network = CachedVLM(model.requires_grad_(False).eval(), n_uncached_blocks=1)
        self.generator = torch.Generator(self.network.device).manual_seed(0)

    def images(self, n: int) -> tuple[list[Grid], list[torch.Tensor]]:
        """Return grids and vision features of `n` images of random patches."""
        grids = [_GRIDS[i % len(_GRIDS)] for i in range(n)]
        pixels = [
            Patches(torch.randn(one[1] * one[2], 1176, generator=torch.Generator().manual_seed(i)), one)
            for i, one in enumerate(grids)
        ]
        return grids, self.network.vision_features(pixels)

    def answers(self, decoder: str, images: tuple[Any, Any], n_tokens: int = 768) -> list[DecoderOutput]:
        """Return the outputs of a decoder that stops after `n_tokens`."""
        kept, structured_decoder.MAX_ANSWER_TOKENS = structured_decoder.MAX_ANSWER_TOKENS, n_tokens  # type: ignore[misc]
        try:
            return make_decoder(decoder, self.network, self.encoder)(*images)  # type: ignore[arg-type]
        finally:
            structured_decoder.MAX_ANSWER_TOKENS = kept  # type: ignore[misc]

    @contextmanager
    def logits(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
        """Replace the logits of every step by `change` of them."""
        handle = self.network.model.lm_head.register_forward_hook(lambda _module, _inputs, output: change(output))
        try:
            yield
        finally:
            handle.remove()

    def noise(self, quote_gain: float) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return a change to random logits, in which a quote has `quote_gain` more: it ends texts."""
        (quote,) = self.encoder.tokenizer.encode('"')

        def change(logits: torch.Tensor) -> torch.Tensor:
            found = torch.randn(logits.shape, generator=self.generator, device=logits.device).to(logits.dtype)
            found[..., quote] += quote_gain
            return found

        return change

    def forbidden(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return a change to random logits whose highest ones are those of special tokens and beyond the tokenizer."""
        ids = [one for one in self.encoder.tokenizer.all_special_ids if one != self.encoder.end_token_id]
        noise = self.noise(quote_gain=4.0)

        def change(logits: torch.Tensor) -> torch.Tensor:
            found = noise(logits)
            found[..., ids] = 50.0
            found[..., len(self.encoder.tokenizer) :] = 100.0
            return found

        return change


@dataclass
class Times:
    """Wall-clock and processor seconds; the latter are those of all threads of the process."""

    wall: float = 0.0
    processor: float = 0.0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Add the seconds of a block."""
        wall, processor = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.wall += time.perf_counter() - wall
            self.processor += time.process_time() - processor


@contextmanager
def timed_mask() -> Iterator[Times]:
    """Sum the seconds of the mask and of the parsers."""
    times = Times()

    def timed(method: Any) -> Any:
        def call(*arguments: Any) -> Any:
            with times.taken():
                return method(*arguments)

        return call

    originals = {name: getattr(ConstrainedRows, name) for name in ("mask", "accept")}
    for name, method in originals.items():
        setattr(ConstrainedRows, name, timed(method))
    try:
        yield times
    finally:
        for name, method in originals.items():
            setattr(ConstrainedRows, name, method)

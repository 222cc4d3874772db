"""Pruning of language layers: hidden states over a dataset in, the influence of each layer and a shallower model out.

Source: X. Men et al., "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect", 2024
(arXiv 2403.03853): the block influence of a layer is 1 - the mean cosine similarity of a token's hidden state before
and after the layer; the layers of least influence are removed.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from skincare.dataset.chat import Example
from skincare.inference.classifier import Classifier


@torch.no_grad()
def block_influences(classifier: Classifier, examples: Sequence[Example], batch_size: int = 16) -> list[float]:
    """Return the block influence of each language layer over the image, question and hint tokens of examples.

    The prompt prefix, which is the same for all images, is not counted.
    """
    network, encoder = classifier.network, classifier.encoder
    layers = network.model.model.language_model.layers
    sums, n_tokens = torch.zeros(len(layers), dtype=torch.float64), 0
    for start in range(0, len(examples), batch_size):
        part = examples[start : start + batch_size]
        grids, features = classifier.features.get([one.image for one in part])
        batch = encoder.inference_batch(grids, [one.hint for one in part]).to(network.device)
        visual = network.visual_tokens(grids, features)
        if start == 0:
            network.hidden_states(batch, visual)  # fills the cache of the prompt prefix, whose tokens are not counted
        is_token = batch.attention_mask.bool()
        with _similarities(layers, is_token) as found:
            network.hidden_states(batch, visual)
        sums += torch.stack(found)
        n_tokens += int(is_token.sum())
    return (1 - sums / n_tokens).tolist()


@contextmanager
def _similarities(layers: nn.ModuleList, is_token: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Collect each layer's sum of cosine similarities of input and output over tokens, during one forward pass."""
    found: list[torch.Tensor] = []

    def measure(_module: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
        after = output[0] if isinstance(output, tuple) else output
        before, after = inputs[0][is_token].double(), after[is_token].double()
        found.append(functional.cosine_similarity(before, after, dim=-1).sum().cpu())

    handles = [layer.register_forward_hook(measure) for layer in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def n_fixed_layers(config: Any) -> int:
    """Return how many layers at the start cannot be dropped: Qwen3-VL adds vision features to their outputs."""
    return len(getattr(config.vision_config, "deepstack_visual_indexes", ()))


def least_influential(influences: Sequence[float], n: int, n_fixed: int = 0) -> list[int]:
    """Return the positions of the `n` layers of least influence, the least first; of equals the later one first.

    The first `n_fixed` layers are never among them.
    """
    return sorted(range(n_fixed, len(influences)), key=lambda i: (influences[i], -i))[:n]


def drop_layers(model: Any, dropped: Collection[int]) -> None:
    """Remove language layers by position, in place; the config follows, so that plain transformers loads the result.

    Raises ValueError for a position that does not exist and if no layer would be left.
    """
    text, config = model.model.language_model, model.config.text_config
    n_layers = len(text.layers)
    if not set(dropped) < set(range(n_layers)):
        raise ValueError(f"cannot drop layers {sorted(dropped)} of {n_layers}")
    kept = [i for i in range(n_layers) if i not in dropped]
    text.layers = nn.ModuleList(text.layers[i] for i in kept)
    for place, layer in enumerate(text.layers):
        layer.self_attn.layer_idx = place  # its place in the KV cache
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = [config.layer_types[i] for i in kept]
    # Layers from this position on use the sliding window, where there is one.
    if getattr(config, "max_window_layers", None) is not None:
        config.max_window_layers = sum(i < config.max_window_layers for i in kept)
    config.num_hidden_layers = len(kept)

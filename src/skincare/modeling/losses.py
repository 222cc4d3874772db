"""What a recipe minimises: the loss on the answer's tokens, on the classification head's choice, or both."""

from collections.abc import Sequence

import torch
from torch.nn import functional

from skincare.modeling.prompt_encoder import Grid, PromptEncoder
from skincare.modeling.qwen2vl import CachedQwen2VL
from skincare.modeling.settings import HeadUse


def example_losses(
    network: CachedQwen2VL, encoder: PromptEncoder, head_use: HeadUse, grids: Sequence[Grid],
    features: Sequence[torch.Tensor], categories: Sequence[str], hints: Sequence[str] = (),
) -> torch.Tensor:  # fmt: skip
    """Return (B,) losses in nats: per answer token, per choice of a category, or the sum of both."""
    places = torch.tensor([encoder.labels.index(category) for category in categories], device=network.device)
    apart = network.caches_prompt_prefix
    if head_use == "alone":
        batch = encoder.batch(grids, padding_side="left", hints=hints, without_prefix=apart).to(network.device)
        return functional.cross_entropy(network.head_scores(batch, features), places, reduction="none")
    batch = encoder.batch(grids, categories, hints=hints, without_prefix=apart).to(network.device)
    if head_use == "none":
        return network(batch, features)
    answer_losses, scores = network.answer_losses_and_head_scores(batch, features)
    return answer_losses + functional.cross_entropy(scores, places, reduction="none")

"""The training loss: cross-entropy of the answer's tokens, of the classification head, or the sum of both."""

from collections.abc import Sequence

import torch
from torch.nn import functional

from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.prompt_encoder import Grid, PromptEncoder
from skincare.modeling.settings import HeadUse
from skincare.modeling.staging import on_device


def example_losses(
    network: CachedVLM, encoder: PromptEncoder, head_use: HeadUse, grids: Sequence[Grid],
    features: Sequence[torch.Tensor], categories: Sequence[str], hints: Sequence[str] = (),
    answers: Sequence[str] = (),
) -> torch.Tensor:  # fmt: skip
    """Return the (B,) losses in nats: of the answer (mean over its tokens), of the head, or their sum.

    `answers`: one per image where the answers are not the categories.
    """
    without_prefix = network.caches_prompt_prefix
    if head_use != "none":
        indices = torch.tensor([encoder.labels.index(category) for category in categories])
        targets = on_device(indices, network.device)
    if head_use == "alone":
        batch = encoder.batch(grids, padding_side="left", hints=hints, without_prefix=without_prefix).to(network.device)
        return functional.cross_entropy(network.head_scores(batch, features), targets, reduction="none")
    batch = encoder.batch(grids, answers or categories, hints=hints, without_prefix=without_prefix).to(network.device)
    if head_use == "none":
        return network(batch, features)
    answer_losses, scores = network.answer_losses_and_head_scores(batch, features)
    return answer_losses + functional.cross_entropy(scores, targets, reduction="none")

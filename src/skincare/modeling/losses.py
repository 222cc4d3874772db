"""The training loss: cross-entropy of the answer's tokens, of the classification head, or the sum of both."""

from collections.abc import Sequence

import torch
from torch.nn import functional

from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.label_smoothing import LabelSmoothing
from skincare.modeling.prompt_encoder import Grid, PromptEncoder
from skincare.modeling.settings import HeadUse
from skincare.modeling.staging import on_device


def example_losses(
    network: CachedVLM, encoder: PromptEncoder, head_use: HeadUse, grids: Sequence[Grid],
    features: Sequence[torch.Tensor], categories: Sequence[str], hints: Sequence[str] = (),
    answers: Sequence[str] = (), smoothing: LabelSmoothing | None = None,
) -> torch.Tensor:  # fmt: skip
    """Return the (B,) losses in nats: of the answer (mean over its tokens), of the head, or their sum.

    `answers`: one per image where the answers are not the categories.
    """
    amount = smoothing.amount if smoothing else 0.0
    without_prefix = network.caches_prompt_prefix
    if head_use != "none":
        indices = torch.tensor([encoder.labels.index(category) for category in categories])
        targets = on_device(indices, network.device)
    if head_use == "alone":
        batch = encoder.batch(grids, padding_side="left", hints=hints, without_prefix=without_prefix).to(network.device)
        scores = network.head_scores(batch, features)
        return functional.cross_entropy(scores, targets, reduction="none", label_smoothing=amount)
    batch = encoder.batch(grids, answers or categories, hints=hints, without_prefix=without_prefix).to(network.device)
    smoothed = smoothing.targets(answers or categories, network.device) if smoothing else None
    if head_use == "none":
        return network(batch, features, smoothed)
    answer_losses, scores = network.answer_losses_and_head_scores(batch, features, smoothed)
    return answer_losses + functional.cross_entropy(scores, targets, reduction="none", label_smoothing=amount)

"""The training loss: cross-entropy of the answer's tokens, of the classification head, or the sum of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional

from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.label_smoothing import LabelSmoothing
from skincare.modeling.prompt_encoder import Batch, Grid, PromptEncoder
from skincare.modeling.settings import HeadUse
from skincare.modeling.staging import on_device


@dataclass(frozen=True)
class LossInputs:
    """The prompts of B images, their answers, and the (B,) int64 indices of their labels for the head."""

    batch: Batch
    answers: Sequence[str]
    targets: torch.Tensor
    smoothing: LabelSmoothing | None


def loss_inputs(
    network: CachedVLM, encoder: PromptEncoder, head_use: HeadUse, grids: Sequence[Grid], categories: Sequence[str],
    hints: Sequence[str] = (), answers: Sequence[str] = (), smoothing: LabelSmoothing | None = None,
) -> LossInputs:  # fmt: skip
    """Return the inputs of `input_losses` on the CPU; `answers`: one per image where they are not the categories."""
    batch = partial(
        encoder.batch, grids, hints=hints, without_prefix=network.caches_prompt_prefix,
        length_multiple=network.functions.length_multiple,
    )  # fmt: skip
    targets = torch.tensor([encoder.labels.index(category) for category in categories])
    encoded = batch(padding_side="left") if head_use == "alone" else batch(answers or categories)
    return LossInputs(encoded, answers or categories, targets, smoothing)


def input_losses(
    network: CachedVLM, head_use: HeadUse, inputs: LossInputs, features: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Return the (B,) losses in nats: of the answer (mean over its tokens), of the head, or their sum."""
    batch, smoothing = inputs.batch.to(network.device), inputs.smoothing
    amount, smoothed = smoothing.amount if smoothing else 0.0, None
    if smoothing and head_use != "alone":
        smoothed = smoothing.targets(inputs.answers, network.device)
    if head_use == "none":
        return network(batch, features, smoothed)
    targets = on_device(inputs.targets, network.device)
    if head_use == "alone":
        scores = network.head_scores(batch, features)
        return functional.cross_entropy(scores, targets, reduction="none", label_smoothing=amount)
    answer_losses, scores = network.answer_losses_and_head_scores(batch, features, smoothed)
    return answer_losses + functional.cross_entropy(scores, targets, reduction="none", label_smoothing=amount)


def example_losses(
    network: CachedVLM, encoder: PromptEncoder, head_use: HeadUse, grids: Sequence[Grid],
    features: Sequence[torch.Tensor], categories: Sequence[str], hints: Sequence[str] = (),
    answers: Sequence[str] = (), smoothing: LabelSmoothing | None = None,
) -> torch.Tensor:  # fmt: skip
    """Return `input_losses` of images given by their grids and vision features."""
    inputs = loss_inputs(network, encoder, head_use, grids, categories, hints, answers, smoothing)
    return input_losses(network, head_use, inputs, features)

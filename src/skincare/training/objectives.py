"""What a recipe minimises: the loss on the answer's tokens, on the classification head's choice, or both."""

from collections.abc import Sequence

import torch
from torch.nn import functional

from skincare.modeling.batches import Grid, PromptEncoder
from skincare.modeling.recogniser import Recogniser
from skincare.modeling.settings import HeadUse


def losses(
    recogniser: Recogniser, encoder: PromptEncoder, head_use: HeadUse, grids: Sequence[Grid],
    states: Sequence[torch.Tensor], categories: Sequence[str], hints: Sequence[str] = (),
) -> torch.Tensor:  # fmt: skip
    """Return (B,) losses in nats: per answer token, per choice of a category, or the sum of both."""
    places = torch.tensor([encoder.labels.index(category) for category in categories], device=recogniser.device)
    apart = recogniser.reads_opening_once
    if head_use == "alone":
        batch = encoder.batch(grids, padding_side="left", hints=hints, opening_apart=apart).to(recogniser.device)
        return functional.cross_entropy(recogniser.head_scores(batch, states), places, reduction="none")
    batch = encoder.batch(grids, categories, hints=hints, opening_apart=apart).to(recogniser.device)
    if head_use == "none":
        return recogniser(batch, states)
    answer_losses, scores = recogniser.answer_losses_and_head_scores(batch, states)
    return answer_losses + functional.cross_entropy(scores, places, reduction="none")

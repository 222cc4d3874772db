"""Which visual tokens of an image speak for its true label and which for a rival.

The contrast is the logit of the true label's token minus that of the rival's, at the first token in which they differ.
Two methods attribute it to the visual tokens, in one pass per batch:

gradient  the gradient of the contrast times the visual token: the change if the token were faded out
lens      the language head on the final hidden state of each visual token: what the model would generate there
"""

from collections.abc import Sequence

import torch

from skincare.inference.saliency_maps import METHODS, Map, Saliency
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.prompt_encoder import IGNORED, Grid, PromptEncoder


def explain(
    network: CachedVLM, encoder: PromptEncoder, grids: Sequence[Grid], features: Sequence[torch.Tensor],
    truths: Sequence[str], rivals: Sequence[str], hints: Sequence[str] = (),
) -> list[Saliency]:  # fmt: skip
    """Return the saliency of each image for its true label (positive) and for its rival (negative)."""
    batch = encoder.batch(grids, truths, hints=hints).to(network.device)
    pairs = [_first_difference(encoder, *names) for names in zip(truths, rivals, strict=True)]
    before_answer = (batch.labels != IGNORED).int().argmax(dim=1) - 1
    positions = before_answer + torch.tensor([n for n, _, _ in pairs], device=before_answer.device)
    tokens = torch.tensor([[true, rival] for _, true, rival in pairs], device=before_answer.device)
    visual = network.visual_tokens(grids, features).requires_grad_()
    with torch.enable_grad():
        hidden = network.hidden_states(batch, visual)
        contrasts = _contrast(network, hidden[torch.arange(len(grids)), positions][:, None], tokens)[:, 0]
        (gradient,) = torch.autograd.grad(contrasts.sum(), visual)
    is_image = batch.input_ids == encoder.image_token_id
    with torch.no_grad():
        values = {
            "gradient": (gradient * visual).sum(dim=-1).float(),
            "lens": _contrast(network, hidden.detach(), tokens)[is_image],
        }
    sizes = [encoder.n_visual_tokens(grid) for grid in grids]
    parts = {name: one.cpu().double().split(sizes) for name, one in values.items()}
    return [
        Saliency(contrasts[i].item(), {name: _to_map(parts[name][i], grid, encoder) for name in METHODS})
        for i, grid in enumerate(grids)
    ]


def _first_difference(encoder: PromptEncoder, truth: str, rival: str) -> tuple[int, int, int]:
    """Return the number of tokens that two labels share at their start, and the next token of each."""
    pairs = zip(encoder.answer_tokens(truth), encoder.answer_tokens(rival), strict=False)
    return next((i, true, other) for i, (true, other) in enumerate(pairs) if true != other)


def _contrast(network: CachedVLM, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return (B, T) differences of two tokens' logits from (B, T, width) hidden states and (B, 2) tokens."""
    weights = network.model.lm_head.weight[tokens].float()
    return (hidden.float() * (weights[:, :1] - weights[:, 1:])).sum(dim=-1)


def _to_map(values: torch.Tensor, grid: Grid, encoder: PromptEncoder) -> Map:
    return values.reshape(grid[1] // encoder.merge_size, grid[2] // encoder.merge_size).numpy()

"""Which visual tokens of an image speak for its true label and which for a rival, and which the answer attends to.

The contrast is the logit of the true label's token minus that of the rival's, at the first token in which their answers
differ; for the classification head, the difference of their scores. Two methods attribute it to the visual tokens:

gradient  the gradient of the contrast times the visual token: the change if the token were faded out
lens      the language head on the final hidden state of each visual token: what the model would generate there

The attention is that of the position from which the contrast is read, a map for each group of language layers, and its
rollout through all of them. All of it comes from one pass per batch.
"""

from collections.abc import Callable, Sequence

import torch

from skincare.inference.saliency_maps import LAYER_GROUPS, METHODS, ROLLOUT, Map, Saliency
from skincare.modeling.attention_weights import AttentionRecorder, recorded_attention
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.prompt_encoder import IGNORED, Batch, Grid, PromptEncoder

# (B, T) contrasts from (B, T, width) hidden states.
Contrast = Callable[[torch.Tensor], torch.Tensor]


def explain(
    network: CachedVLM, encoder: PromptEncoder, grids: Sequence[Grid], features: Sequence[torch.Tensor],
    truths: Sequence[str], rivals: Sequence[str], hints: Sequence[str] = (), *, by_head: bool = False,
) -> list[Saliency]:  # fmt: skip
    """Return the saliency of each image for its true answer (positive) and for its rival (negative), and the attention.

    truths, rivals: labels, or structured answers that differ in their category; `by_head`, labels whose scores of the
    classification head are compared.
    """
    batch = encoder.batch(grids, truths, hints=hints, without_prefix=True).to(network.device)
    positions, contrast = _position_and_contrast(network, encoder, batch, truths, rivals, by_head=by_head)
    visual = network.visual_tokens(grids, features).requires_grad_()
    is_image = batch.input_ids == encoder.image_token_id
    text_model, n_prefix = network.model.model.language_model, len(batch.prompt_prefix)
    with torch.enable_grad(), recorded_attention(text_model, positions, is_image, n_prefix) as recorder:
        hidden = network.hidden_states(batch, visual)
        contrasts = contrast(hidden[torch.arange(len(grids)), positions][:, None])[:, 0]
        (gradient,) = torch.autograd.grad(contrasts.sum(), visual)
    with torch.no_grad():
        values = {
            "gradient": (gradient * visual).sum(dim=-1).float(),
            "lens": contrast(hidden.detach())[is_image],
        }
    sizes = [encoder.n_visual_tokens(grid) for grid in grids]
    parts = {name: one.cpu().double().split(sizes) for name, one in values.items()}
    attention = _attention(recorder, is_image)
    return [
        Saliency(
            contrasts[i].item(),
            {name: _to_map(parts[name][i], grid, encoder) for name in METHODS},
            {name: _to_map(rows[i][: sizes[i]], grid, encoder) for name, rows in attention.items()},
        )
        for i, grid in enumerate(grids)
    ]


@torch.no_grad()
def nearest_rivals(
    network: CachedVLM, encoder: PromptEncoder, grids: Sequence[Grid], features: Sequence[torch.Tensor],
    truths: Sequence[str], candidates: Sequence[Sequence[str]], hints: Sequence[str] = (),
) -> list[str]:  # fmt: skip
    """Return for each image the candidate answer whose token has the highest logit relative to the true answer's."""
    batch = encoder.batch(grids, truths, hints=hints, without_prefix=True).to(network.device)
    hidden = network.hidden_states(batch, network.visual_tokens(grids, features))
    found = []
    for row, before, truth, others in zip(hidden, _before_answer(batch).tolist(), truths, candidates, strict=True):
        pairs = [_first_difference(encoder, truth, other) for other in others]
        states = torch.stack([row[before + n] for n, _, _ in pairs])[:, None]
        tokens = torch.tensor([[true, other] for _, true, other in pairs], device=row.device)
        found.append(others[int(_token_contrast(network, states, tokens)[:, 0].argmin())])
    return found


def layer_groups(n_layers: int) -> dict[str, range]:
    """Return the layers of each third of a language model; the earlier ones take what cannot be divided.

    A model of fewer than three layers has fewer groups.
    """
    n, more = divmod(n_layers, len(LAYER_GROUPS))
    starts = [i * n + min(i, more) for i in range(len(LAYER_GROUPS) + 1)]
    groups = zip(LAYER_GROUPS, starts, starts[1:], strict=False)
    return {name: range(start, end) for name, start, end in groups if end > start}


def _position_and_contrast(
    network: CachedVLM, encoder: PromptEncoder, batch: Batch, truths: Sequence[str], rivals: Sequence[str], *,
    by_head: bool,
) -> tuple[torch.Tensor, Contrast]:  # fmt: skip
    """Return the (B,) positions from which the contrasts are read, and the function that reads them."""
    if by_head:
        labels = torch.tensor(
            [[encoder.labels.index(name) for name in pair] for pair in zip(truths, rivals, strict=True)]
        )
        return _before_answer(batch), lambda hidden: _head_contrast(network, hidden, labels.to(hidden.device))
    pairs = [_first_difference(encoder, *answers) for answers in zip(truths, rivals, strict=True)]
    tokens = torch.tensor([[true, rival] for _, true, rival in pairs], device=batch.input_ids.device)
    n_shared = torch.tensor([n for n, _, _ in pairs], device=batch.input_ids.device)
    return _before_answer(batch) + n_shared, lambda hidden: _token_contrast(network, hidden, tokens)


def _before_answer(batch: Batch) -> torch.Tensor:
    """Return the (B,) positions of the last token of the prompts."""
    return (batch.labels != IGNORED).int().argmax(dim=1) - 1


def _first_difference(encoder: PromptEncoder, truth: str, rival: str) -> tuple[int, int, int]:
    """Return the number of tokens that two answers share at their start, and the next token of each."""
    pairs = zip(encoder.answer_tokens(truth), encoder.answer_tokens(rival), strict=False)
    return next((i, true, other) for i, (true, other) in enumerate(pairs) if true != other)


def _token_contrast(network: CachedVLM, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return (B, T) differences of two tokens' logits from (B, T, width) hidden states and (B, 2) tokens."""
    weights = network.model.lm_head.weight[tokens].float()
    return (hidden.float() * (weights[:, :1] - weights[:, 1:])).sum(dim=-1)


def _head_contrast(network: CachedVLM, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return (B, T) differences of two labels' head scores from (B, T, width) hidden states and (B, 2) labels."""
    assert network.head is not None
    pairs = labels[:, None].expand(-1, hidden.shape[1], -1)
    scores = network.head(hidden).gather(-1, pairs)
    return scores[..., 0] - scores[..., 1]


def _attention(recorder: AttentionRecorder, is_image: torch.Tensor) -> dict[str, list[torch.Tensor]]:
    """Return for each group of layers and for the rollout the images' attention per visual token, mean over heads."""
    weights = recorder.weights.mean(dim=2)[..., -is_image.shape[1] :].cpu().double()
    groups = {
        name: weights[layers.start : layers.stop].mean(dim=0) for name, layers in layer_groups(len(weights)).items()
    }
    found = {name: [row[mask] for row, mask in zip(rows, is_image.cpu(), strict=True)] for name, rows in groups.items()}
    return found | {ROLLOUT: list(recorder.rollout.cpu().double())}


def _to_map(values: torch.Tensor, grid: Grid, encoder: PromptEncoder) -> Map:
    return values.reshape(grid[1] // encoder.merge_size, grid[2] // encoder.merge_size).numpy()

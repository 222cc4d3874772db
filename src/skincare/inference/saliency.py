"""Which places of an image speak for its true category and which for a rival, as the language model reads them.

The contrast is the logit of the true name's token less that of the rival's, where the two names first differ. Two ways
to spread it over the image's visual tokens, both one pass per batch:

gradient  gradient of the contrast times the visual token: how it would change if the token were faded out
lens      the language head on each visual token's own last state: what the model would say there
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from skincare.modeling.prompt_encoder import IGNORED, Grid, PromptEncoder
from skincare.modeling.qwen2vl import CachedQwen2VL

Method = Literal["gradient", "lens"]
METHODS: Final[tuple[Method, ...]] = get_args(Method)
Map = npt.NDArray[np.float64]
# left, top, right, bottom as shares of the image.
BoxShares = tuple[float, float, float, float]

_FOR: Final = (0, 114, 178)
_AGAINST: Final = (213, 94, 0)
_STRONGEST: Final = 0.75


@dataclass(frozen=True)
class Saliency:
    """One image: the contrast in logits, and per method a (rows, columns) map of its visual tokens."""

    contrast: float
    maps: dict[Method, Map]


def explain(
    network: CachedQwen2VL, encoder: PromptEncoder, grids: Sequence[Grid], features: Sequence[torch.Tensor],
    truths: Sequence[str], rivals: Sequence[str], hints: Sequence[str] = (),
) -> list[Saliency]:  # fmt: skip
    """Return what speaks for each image's true name (positive) and for its rival (negative)."""
    batch = encoder.batch(grids, truths, hints=hints).to(network.device)
    pairs = [_first_difference(encoder, *names) for names in zip(truths, rivals, strict=True)]
    first = (batch.labels != IGNORED).int().argmax(dim=1) - 1
    places = first + torch.tensor([n for n, _, _ in pairs], device=first.device)
    tokens = torch.tensor([[mine, other] for _, mine, other in pairs], device=first.device)
    visual = network.visual_tokens(grids, features).requires_grad_()
    with torch.enable_grad():
        hidden = network.hidden_states(batch, visual)
        contrasts = _contrast(network, hidden[torch.arange(len(grids)), places][:, None], tokens)[:, 0]
        (gradient,) = torch.autograd.grad(contrasts.sum(), visual)
    is_image = batch.input_ids == encoder.image_token_id
    with torch.no_grad():
        spread = {
            "gradient": (gradient * visual).sum(dim=-1).float(),
            "lens": _contrast(network, hidden.detach(), tokens)[is_image],
        }
    sizes = [encoder.n_visual_tokens(grid) for grid in grids]
    parts = {name: values.cpu().double().split(sizes) for name, values in spread.items()}
    return [
        Saliency(contrasts[i].item(), {name: _as_map(parts[name][i], grid, encoder) for name in METHODS})
        for i, grid in enumerate(grids)
    ]


def _first_difference(encoder: PromptEncoder, truth: str, rival: str) -> tuple[int, int, int]:
    """Return how many tokens two names share at their beginning, and the token of each that follows."""
    pairs = zip(encoder.answer_tokens(truth), encoder.answer_tokens(rival), strict=False)
    return next((i, mine, other) for i, (mine, other) in enumerate(pairs) if mine != other)


def _contrast(network: CachedQwen2VL, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return (B, T) differences of two tokens' logits from (B, T, width) features and (B, 2) tokens."""
    weights = network.model.lm_head.weight[tokens].float()
    return (hidden.float() * (weights[:, :1] - weights[:, 1:])).sum(dim=-1)


def _as_map(values: torch.Tensor, grid: Grid, encoder: PromptEncoder) -> Map:
    return values.reshape(grid[1] // encoder.merge_size, grid[2] // encoder.merge_size).numpy()


def cover(shape: tuple[int, ...], box: BoxShares) -> Map:
    """Return which share of each of (rows, columns) cells lies in a box."""
    ends = ((box[1], box[3]), (box[0], box[2]))
    down, across = (
        np.clip(np.minimum(np.arange(1, n + 1), high * n) - np.maximum(np.arange(n), low * n), 0, 1)
        for n, (low, high) in zip(shape, ends, strict=True)
    )
    return np.outer(down, across)


def share_inside(found: Map, inside: Map) -> float:
    """Return which share of what speaks for the truth lies inside; that of the area where nothing does."""
    positive = np.maximum(found, 0)
    return float((positive * inside).sum() / positive.sum()) if positive.sum() > 0 else float(inside.mean())


def points_inside(found: Map, inside: Map) -> bool:
    """Tell whether the strongest place lies inside by more than half."""
    return bool(inside.flat[int(found.argmax())] > 0.5)


def overlay(image: Image.Image, found: Map, side_px: int = 320) -> Image.Image:
    """Return the image in grey, blue where it speaks for the truth and orange where it speaks for the rival."""
    grey = image.convert("L").convert("RGB")
    grey.thumbnail((side_px, side_px))
    strength = found / max(float(np.abs(found).max()), 1e-12)
    smooth = np.asarray(_resized(strength, grey.size))[..., None]
    colour: Any = np.where(smooth > 0, np.array(_FOR), np.array(_AGAINST))
    depth = _STRONGEST * np.clip(np.abs(smooth), 0, 1)
    return Image.fromarray((np.asarray(grey) * (1 - depth) + colour * depth).round().astype(np.uint8))


def _resized(values: Map, size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)

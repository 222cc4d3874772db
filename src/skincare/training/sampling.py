"""Which training images a run takes, in what order, and what each weighs; rare categories may be helped."""

import hashlib
import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final, Literal

import torch

from skincare.dataset.chat import Example

Imbalance = Literal["none", "balanced_sampler", "class_balanced", "focal"]

# Of effective numbers: 0.99 counts the hundredth image of a category a third as much as the first.
_BETA: Final = 0.99
_FOCUS: Final = 2.0


def subsample(examples: Sequence[Example], share: float, seed: int) -> list[Example]:
    """Return a share of the examples of every category, rounded up, in their order."""
    by_category: dict[str, list[Example]] = defaultdict(list)
    for one in examples:
        by_category[one.category].append(one)
    rng = random.Random(seed)
    chosen = {
        one.image_id
        for category in sorted(by_category)
        for one in rng.sample(by_category[category], math.ceil(share * len(by_category[category])))
    }
    return [one for one in examples if one.image_id in chosen]


def epoch_order(categories: Sequence[str], imbalance: Imbalance, seed: int, epoch: int) -> list[int]:
    """Return which examples an epoch takes, in order: each once or, balanced, as many drawn with replacement.

    A function of seed and epoch alone, so that a run can go on in the middle of an epoch.
    """
    # An odd factor keeps the seeds of neighbouring runs and epochs apart.
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    if imbalance != "balanced_sampler":
        return torch.randperm(len(categories), generator=generator).tolist()
    counts = Counter(categories)
    weights = torch.tensor([1 / counts[category] for category in categories], dtype=torch.float64)
    return torch.multinomial(weights, len(categories), replacement=True, generator=generator).tolist()


def keeps_hint(dropout: float, seed: int, epoch: int, image_id: str) -> bool:
    """Tell whether this epoch shows an image with its hint; a function of the arguments, like `epoch_order`."""
    digest = hashlib.sha256(f"hint {seed} {epoch} {image_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >= dropout * 2**64


def category_weights(categories: Sequence[str]) -> dict[str, float]:
    """Return each category's weight by its effective number of images; the mean over images is 1.

    Source: Cui et al. 2019, "Class-balanced loss based on effective number of samples", equation 4.
    """
    counts = Counter(categories)
    raw = {category: (1 - _BETA) / (1 - _BETA**n) for category, n in counts.items()}
    mean = sum(raw[category] * n for category, n in counts.items()) / len(categories)
    return {category: weight / mean for category, weight in raw.items()}


def focal_losses(losses: torch.Tensor) -> torch.Tensor:
    """Return (B,) losses damped where the answer is already likely: (1 - p)^2 times the loss, p = exp(-loss).

    Source: Lin et al. 2017, "Focal loss for dense object detection", with an answer's mean token loss as the loss.
    """
    return (1 - torch.exp(-losses)) ** _FOCUS * losses

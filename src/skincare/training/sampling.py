"""Sampling of training examples: subsets, the order of an epoch, hint dropout, and weights against class imbalance."""

import hashlib
import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

import torch

from skincare.dataset.chat import Example
from skincare.training.recipes import Imbalance

# Of the effective number of samples: at 0.99 the hundredth image of a category counts 0.37 times as much as the first.
_BETA: Final = 0.99
# Exponent of the focal loss; the value that its authors recommend.
_GAMMA: Final = 2.0


def subsample(examples: Sequence[Example], share: float, seed: int) -> list[Example]:
    """Return a random share of the examples of every category, rounded up, in their original order."""
    by_category: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_category[example.category].append(example)
    rng = random.Random(seed)
    chosen = {
        example.image_id
        for category in sorted(by_category)
        for example in rng.sample(by_category[category], math.ceil(share * len(by_category[category])))
    }
    return [example for example in examples if example.image_id in chosen]


def epoch_order(categories: Sequence[str], imbalance: Imbalance, seed: int, epoch: int) -> list[int]:
    """Return the indices of an epoch's examples in order: each once, or drawn with replacement if balanced.

    Depends on seed and epoch only, so that a run can be resumed in the middle of an epoch.
    """
    # An odd factor keeps the seeds of neighbouring runs and epochs apart.
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    if imbalance != "balanced_sampler":
        return torch.randperm(len(categories), generator=generator).tolist()
    counts = Counter(categories)
    weights = torch.tensor([1 / counts[category] for category in categories], dtype=torch.float64)
    return torch.multinomial(weights, len(categories), replacement=True, generator=generator).tolist()


def keeps_hint(dropout: float, seed: int, epoch: int, image_id: str) -> bool:
    """Return whether an epoch shows an image with its hint; depends on the arguments only, like `epoch_order`."""
    digest = hashlib.sha256(f"hint {seed} {epoch} {image_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >= dropout * 2**64


def category_weights(categories: Sequence[str]) -> dict[str, float]:
    """Return a loss weight per category from its effective number of images; the mean over images is 1.

    Source: Cui et al. 2019, "Class-balanced loss based on effective number of samples", equation 4.
    """
    counts = Counter(categories)
    raw = {category: (1 - _BETA) / (1 - _BETA**n) for category, n in counts.items()}
    mean = sum(raw[category] * n for category, n in counts.items()) / len(categories)
    return {category: weight / mean for category, weight in raw.items()}


def focal_losses(losses: torch.Tensor) -> torch.Tensor:
    """Return (B,) focal losses (1 - p)^2 * loss, where p = exp(-loss) is the likelihood of the answer.

    Source: Lin et al. 2017, "Focal loss for dense object detection", applied to an answer's mean token loss.
    """
    return (1 - torch.exp(-losses)) ** _GAMMA * losses

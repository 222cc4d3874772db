"""Drift of a batch of predictions against a reference batch: one test per item; pure functions.

An item drifts if its p-value, corrected by Holm over all items, is below ALPHA and its effect reaches a threshold: with
100,000 images any difference is significant, so size decides what matters. Images of one product resemble each other;
each image therefore counts as `weight` = products / images of its batch where products are known (a conservative
design effect).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from skincare.evaluation.intervals import wilson_interval

Kind = Literal["share", "shares", "distribution"]
Floats = npt.NDArray[np.float64]

# Error probability of all items together.
ALPHA: Final = 0.01
# Least effects that count: difference of a share, total variation distance of category shares, Kolmogorov-Smirnov
# distance of a distribution. Chosen by hand: a twentieth, a tenth and a fifth of the images changed.
EFFECTS: Final[dict[Kind, float]] = {"share": 0.05, "shares": 0.1, "distribution": 0.2}
# The reference holds readable images only, and a broken feed shows early.
UNREADABLE_EFFECT: Final = 0.02
# Chi-squared needs about five expected images per category; rarer ones are pooled.
_LEAST_EXPECTED: Final = 5.0


@dataclass(frozen=True)
class Batch:
    """What is compared of a batch. labels: the likeliest label of each image that has one; confidence: (n,) its
    probability; metrics: name -> (n,) values. weight: independent images per image, at most 1.
    """

    n: int
    n_abstained: int
    n_unreadable: int
    labels: Sequence[str]
    confidence: Floats
    metrics: Mapping[str, Floats] = field(default_factory=dict)
    weight: float = 1.0


@dataclass(frozen=True)
class Item:
    """One comparison. values: of reference and batch, a share or a median, each with its 95 % interval."""

    name: str
    kind: Kind
    reference: float | None
    reference_interval: tuple[float, float] | None
    value: float | None
    interval: tuple[float, float] | None
    effect: float
    effect_threshold: float
    p_value: float
    p_corrected: float = 1.0
    has_drifted: bool = False


def compare(reference: Batch, batch: Batch) -> list[Item]:
    """Return the items with their corrected p-values; items that either batch lacks are left out."""
    found = [
        _share("unreadable", reference, batch, (reference.n_unreadable, batch.n_unreadable), UNREADABLE_EFFECT),
        _share("abstained", reference, batch, (reference.n_abstained, batch.n_abstained), EFFECTS["share"]),
    ]
    if reference.labels and batch.labels:
        found.append(_labels(reference, batch))
    if len(reference.confidence) and len(batch.confidence):
        found.append(_distribution("confidence", reference, batch, reference.confidence, batch.confidence))
    found += [
        _distribution(name, reference, batch, values, batch.metrics[name])
        for name, values in reference.metrics.items()
        if len(values) and len(batch.metrics.get(name, ()))
    ]
    return _corrected(found)


def category_shares(reference: Batch, batch: Batch) -> list[Item]:
    """Return the share of each category with intervals, by falling difference; shown, not tested one by one."""
    counts = Counter(reference.labels), Counter(batch.labels)
    sizes = len(reference.labels), len(batch.labels)
    rows = []
    for name in sorted({*counts[0], *counts[1]}):
        before, after = (count[name] / max(1, n) for count, n in zip(counts, sizes, strict=True))
        intervals = [
            _interval(share, n * weight)
            for share, n, weight in zip(
                (before, after), sizes, (reference.weight, batch.weight), strict=True
            )
        ]  # fmt: skip
        rows.append(Item(name, "share", before, intervals[0], after, intervals[1], abs(after - before), 0.0, 1.0))
    return sorted(rows, key=lambda row: (-row.effect, row.name))


def _share(name: str, reference: Batch, batch: Batch, counts: tuple[int, int], threshold: float) -> Item:
    """Return the item of a share, by Fisher's exact test."""
    sizes = reference.n * reference.weight, batch.n * batch.weight
    shares = counts[0] / max(1, reference.n), counts[1] / max(1, batch.n)
    table = [[round(share * n), max(0, round(n) - round(share * n))] for share, n in zip(shares, sizes, strict=True)]
    p_value = float(stats.fisher_exact(table)[1])
    intervals = [_interval(share, n) for share, n in zip(shares, sizes, strict=True)]
    effect = abs(shares[1] - shares[0])
    return Item(name, "share", shares[0], intervals[0], shares[1], intervals[1], effect, threshold, p_value)


def _labels(reference: Batch, batch: Batch) -> Item:
    """Return the item of the category shares: chi-squared of homogeneity, total variation distance."""
    names = sorted({*reference.labels, *batch.labels})
    tables = []
    for one in (reference, batch):
        counts = Counter(one.labels)
        tables.append(np.array([counts[name] for name in names], dtype=np.float64) * one.weight)
    table = np.stack(tables)
    shares = table / table.sum(axis=1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    is_rare = expected.min(axis=0) < _LEAST_EXPECTED
    pooled = np.concatenate([table[:, ~is_rare], table[:, is_rare].sum(axis=1, keepdims=True)], axis=1)
    pooled = pooled[:, pooled.sum(axis=0) > 0]
    p_value = float(stats.chi2_contingency(pooled)[1]) if pooled.shape[1] > 1 else 1.0
    return Item("categories", "shares", None, None, None, None, distance, EFFECTS["shares"], p_value)


def _distribution(name: str, reference: Batch, batch: Batch, before: Floats, after: Floats) -> Item:
    """Return the item of a distribution: Kolmogorov-Smirnov's distance, its asymptotic p-value, medians."""
    distance = float(stats.ks_2samp(before, after, method="asymp").statistic)
    n, m = len(before) * reference.weight, len(after) * batch.weight
    p_value = float(stats.kstwobign.sf(math.sqrt(n * m / (n + m)) * distance))
    return Item(
        name, "distribution", float(np.median(before)), _median_interval(before, reference.weight),
        float(np.median(after)), _median_interval(after, batch.weight), distance, EFFECTS["distribution"], p_value,
    )  # fmt: skip


def _median_interval(values: Floats, weight: float) -> tuple[float, float]:
    """Return the 95 % interval of a median by order statistics."""
    half = 1.959964 * 0.5 / math.sqrt(max(1.0, len(values) * weight))
    low, high = np.quantile(values, (max(0.0, 0.5 - half), min(1.0, 0.5 + half)))
    return float(low), float(high)


def _interval(share: float, n: float) -> tuple[float, float]:
    size = max(1, round(n))
    return wilson_interval(share * size, size)


def _corrected(items: Sequence[Item]) -> list[Item]:
    """Return the items with p-values corrected by Holm's method, and whether each has drifted."""
    corrected, largest = list(items), 0.0
    for rank, i in enumerate(sorted(range(len(items)), key=lambda i: items[i].p_value)):
        largest = max(largest, min(1.0, items[i].p_value * (len(items) - rank)))
        drifted = largest < ALPHA and items[i].effect >= items[i].effect_threshold
        corrected[i] = replace(items[i], p_corrected=largest, has_drifted=drifted)
    return corrected

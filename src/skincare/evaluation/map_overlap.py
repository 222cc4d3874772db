"""Agreement of two maps over the same visual tokens, and of maps with the product's box, over images.

Maps are compared by where their largest values are (intersection over union) and by the order of all values (Spearman's
rank correlation). Chance is twofold: cells drawn at random, and the map of an image of another product, which has what
all maps share, such as a preference for the centre. Intervals resample products.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from scipy import stats

from skincare.evaluation import intervals
from skincare.inference import saliency_maps
from skincare.inference.saliency_maps import BoxShares, Map

TOP_SHARE: Final = 0.2
_N_RESAMPLES: Final = 2000


def n_top(n_cells: int) -> int:
    """Return the number of cells that are the top of a map."""
    return max(1, round(TOP_SHARE * n_cells))


def top_overlap(one: Map, other: Map) -> float:
    """Return the intersection over union of the cells with the largest values; the first of equal cells count."""
    first, second = (set(np.argsort(-x.ravel(), kind="stable")[: n_top(x.size)].tolist()) for x in (one, other))
    return len(first & second) / len(first | second)


def chance_overlap(n_cells: int) -> float:
    """Return the expected `top_overlap` of two maps of which one has its cells in random order."""
    n = n_top(n_cells)
    shared = np.arange(n + 1)
    return float((stats.hypergeom(n_cells, n, n).pmf(shared) * shared / (2 * n - shared)).sum())


def rank_correlation(one: Map, other: Map) -> float:
    """Return Spearman's rank correlation; 0 where a map is constant."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(stats.spearmanr(one.ravel(), other.ravel()).statistic)


def agreement(
    maps: Mapping[str, Sequence[Map]], reference: Sequence[Map], products: Sequence[str], seed: int
) -> dict[str, dict[str, Any]]:
    """Return for each kind of map its agreement with the reference map of the same image, the mean over images.

    iou, correlation: with the reference; other: with the reference of another product's image, resized; excess:
    iou - other. `other` and `excess` are None for images of a single product.
    """
    partners = _partners(products, seed)
    found: dict[str, dict[str, Any]] = {}
    for name, of_images in maps.items():
        pairs = list(zip(of_images, reference, strict=True))
        iou = np.array([top_overlap(one, other) for one, other in pairs])
        correlation = np.array([rank_correlation(one, other) for one, other in pairs])
        found[name] = {
            **_mean("iou", iou, products, seed, intervals.interval_of_draws),
            **_mean("correlation", correlation, products, seed, _signed_interval),
            "other": None,
            "excess": None,
        }
        if partners:
            controls = [_resized(reference[i], one) for i, one in zip(partners, of_images, strict=True)]
            other = np.array([top_overlap(*pair) for pair in zip(of_images, controls, strict=True)])
            found[name] |= _mean("other", other, products, seed, intervals.interval_of_draws)
            found[name] |= _mean("excess", iou - other, products, seed, _signed_interval)
    return found


def inside_boxes(
    maps: Mapping[str, Sequence[Map]], boxes: Sequence[BoxShares], products: Sequence[str], seed: int
) -> dict[str, dict[str, Any]]:
    """Return for each kind of map the mean share of its positive values inside the images' boxes.

    pointing: the share of images whose largest value is inside. Two kinds are added: `shuffled`, the first one in
    random order, and `area`, the share of the image's area.
    """
    rng = np.random.default_rng(seed)
    first = next(iter(maps.values()))
    covered = [saliency_maps.coverage(one.shape, box) for one, box in zip(first, boxes, strict=True)]
    shuffled = [rng.permutation(one.ravel()).reshape(one.shape) for one in first]
    found = {}
    for name, of_images in {**maps, "shuffled": shuffled}.items():
        pairs = list(zip(of_images, covered, strict=True))
        found[name] = _inside(
            [saliency_maps.share_inside(*pair) for pair in pairs],
            [float(saliency_maps.points_inside(*pair)) for pair in pairs], products, seed,
        )  # fmt: skip
    area, most = [float(one.mean()) for one in covered], [float((one > 0.5).mean()) for one in covered]
    return found | {"area": _inside(area, most, products, seed)}


def mean_share(values: Sequence[float], products: Sequence[str], seed: int) -> dict[str, Any]:
    """Return the mean of shares over images with its interval: share, share_low, share_high."""
    return _mean("share", np.array(values), products, seed, intervals.interval_of_draws)


def _inside(inside: Sequence[float], pointing: Sequence[float], products: Sequence[str], seed: int) -> dict[str, Any]:
    row: dict[str, Any] = {"n": len(products), "n_products": len(set(products))}
    for name, values in (("inside", inside), ("pointing", pointing)):
        row |= _mean(name, np.array(values), products, seed, intervals.interval_of_draws)
    return row


def _mean(
    name: str, values: intervals.Floats, products: Sequence[str], seed: int,
    interval: Callable[[float, intervals.Floats, int], intervals.Interval],
) -> dict[str, Any]:  # fmt: skip
    """Return the mean over images and its interval, from resampled products, as `name`, `name_low`, `name_high`."""
    names = sorted(set(products))
    member = np.array([[float(product == one) for product in products] for one in names])
    draws = intervals.draw_products(len(names), seed, _N_RESAMPLES)
    drawn = (draws @ (member @ values)) / (draws @ member.sum(axis=1))
    low, high = interval(float(values.mean()), drawn, len(names))
    return {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}


def _signed_interval(_: float, drawn: intervals.Floats, n_products: int) -> intervals.Interval:
    """Return the interval of a correlation or a difference, which lie between -1 and 1."""
    return intervals.difference_interval(drawn, n_products)


def _partners(products: Sequence[str], seed: int) -> list[int]:
    """Return for each image the index of an image of another product, drawn with the seed; empty for one product."""
    if len(set(products)) < 2:
        return []
    rng, indices = np.random.default_rng(seed), np.arange(len(products))
    others = {name: indices[[product != name for product in products]] for name in sorted(set(products))}
    return [int(rng.choice(others[product])) for product in products]


def _resized(found: Map, like: Map) -> Map:
    return found if found.shape == like.shape else saliency_maps.resized(found, (like.shape[0], like.shape[1]))

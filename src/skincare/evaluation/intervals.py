"""Intervals and tests for shares of images, from counts per product.

Predictions for images of one product are correlated, so the bootstrap resamples products. All results are determined
by the counts and the seed.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]
_Key = TypeVar("_Key", bound=Hashable)

_Z_95: Final = 1.959964
_Z_POWER_80: Final = 0.841621
# Smaller differences are rounding errors.
_ROUNDING: Final = 1e-9
# Of an interval that is a number among many, such as that of one threshold.
_N_RESAMPLES: Final = 2000


def draw_products(n_products: int, seed: int, n_resamples: int) -> Floats:
    """Return (n_resamples, n_products), the frequency of each product in each bootstrap sample."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_products, np.full(n_products, 1 / n_products), size=n_resamples)
    return drawn.astype(np.float64)


def percentile_interval(drawn: Floats, n_products: int, level: float = 0.95) -> Interval:
    """Return the interval of a statistic from its bootstrap samples (NaN: undefined in that sample).

    It is wider than the plain percentile interval, which is too narrow for few products.
    Source: T. Hesterberg, "What teachers should know about the bootstrap", 2015 (expanded percentile).
    """
    tail = stats.norm.cdf(-math.sqrt(n_products / (n_products - 1)) * stats.t.ppf((1 + level) / 2, n_products - 1))
    low, high = np.quantile(drawn[~np.isnan(drawn)], (tail, 1 - tail))
    return float(low), float(high)


def share_intervals(shares: Mapping[_Key, tuple[Floats, Floats]], draws: Floats) -> dict[_Key, Interval | None]:
    """Return `share_interval` of each (hits, among)."""
    return {key: share_interval(*share, draws) for key, share in shares.items()}


def share_interval(hits: Floats, among: Floats, draws: Floats) -> Interval | None:
    """Return the 95 % interval of sum(hits) / sum(among), counts per product; None if `among` is zero.

    draws: (n_resamples, products) of `draw_products`.
    """
    n_products = int(np.count_nonzero(among))
    if not n_products:
        return None
    n_drawn = draws @ among
    drawn = np.divide(draws @ hits, n_drawn, out=np.full(len(draws), np.nan), where=n_drawn > 0)
    return interval_of_draws(float(hits.sum() / among.sum()), drawn, n_products)


def image_share_interval(hits: npt.NDArray[np.bool_], product_ids: Sequence[str]) -> Interval | None:
    """Return the 95 % interval, over products, of the share of images that are hits; None without images.

    hits: (n,); product_ids: of the n images.
    """
    if not len(hits):
        return None
    _, rows = np.unique(np.asarray(product_ids), return_inverse=True)
    n_images, n_hits = (np.bincount(rows, values).astype(np.float64) for values in (np.ones(len(hits)), hits))
    return share_interval(n_hits, n_images, draw_products(len(n_images), 0, _N_RESAMPLES))


def interval_of_draws(value: float, drawn: Floats, n_products: int) -> Interval:
    """Return the 95 % interval of a value between 0 and 1 from its bootstrap samples.

    If all samples are equal, as when all predictions are correct or none is, it is Wilson's interval of the products.
    """
    if n_products > 1:
        low, high = percentile_interval(drawn, n_products)
        if high - low > _ROUNDING:
            return low, high
    return wilson_interval(value * n_products, n_products)


def difference_interval(drawn: Floats, n_products: int) -> Interval:
    """Return the 95 % interval of a difference of shares; -1 to 1 for a single product."""
    return percentile_interval(drawn, n_products) if n_products > 1 else (-1.0, 1.0)


def wilson_interval(n_right: float, n: int) -> Interval:
    """Return the 95 % interval of a share of independent images.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    share, z2 = n_right / n, _Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def exact_mcnemar(n_only_before_right: int, n_only_after_right: int) -> float:
    """Return the two-sided p-value of McNemar's exact test on the images that one of two models classified correctly.

    It treats images as independent; `sign_flip_p` does not.
    """
    n = n_only_before_right + n_only_after_right
    return float(stats.binomtest(n_only_after_right, n).pvalue) if n else 1.0


def sign_flip_p(changes: Sequence[float] | npt.NDArray[Any], seed: int, n_resamples: int) -> float:
    """Return the two-sided p-value of the sum of the products' changes, by a sign-flip permutation test.

    Under the null hypothesis the two models' predictions for a product are exchangeable, so each change has a random
    sign. Source: B. Phipson and G. Smyth, "Permutation p-values should never be zero", 2010.
    """
    values = np.sort(np.abs(np.asarray(changes, dtype=np.float64)))
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(n_resamples, len(values)))
    observed = abs(float(np.sum(changes)))
    return (1 + int((np.abs(signs @ values) >= observed - _ROUNDING).sum())) / (1 + n_resamples)


def smallest_detectable_difference(n: int, discordant_share: float) -> float:
    """Return the paired difference of two accuracies that n images detect with 80 % power at the two-sided 5 % level.

    Source: the normal approximation of McNemar's test, n = (z_a sqrt(p) + z_b sqrt(p - d^2))^2 / d^2 with p the share
    of images on which the two differ (R. J. Connor, Biometrics 43, 1987), solved for d. p is at least d.
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        d = (low + high) / 2
        p = max(discordant_share, d)
        needed = (_Z_95 * math.sqrt(p) + _Z_POWER_80 * math.sqrt(p - d * d)) ** 2
        low, high = (d, high) if needed > n * d * d else (low, d)
    return high


def smallest_detectable_difference_of_products(changes: Sequence[float] | npt.NDArray[Any], n: int) -> float:
    """Return the same with images clustered in products; `changes`: (products,) sums over the images.

    Source: (z_a + z_b) cluster-robust standard errors (E. Miller, "Adding error bars to evals", 2024).
    """
    values = np.asarray(changes, dtype=np.float64)
    return (_Z_95 + _Z_POWER_80) * math.sqrt(float((values**2).sum())) / n

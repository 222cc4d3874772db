"""Intervals and tests equal scipy's and statsmodels' and have their nominal coverage."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from skincare.evaluation import intervals


@pytest.mark.parametrize(("n_right", "n"), [(0, 7), (60, 204), (102, 204), (3, 3), (1, 40)])
def test_wilson_interval_equals_statsmodels_and_scipy(n_right, n):
    found = intervals.wilson_interval(n_right, n)
    assert found == pytest.approx(proportion_confint(n_right, n, method="wilson"))
    expected = stats.binomtest(n_right, n).proportion_ci(method="wilson")
    assert found == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("lost", "gained"), [(5, 18), (0, 3), (9, 9), (0, 0), (40, 1)])
def test_mcnemar_equals_statsmodels(lost, gained):
    expected = mcnemar([[50, lost], [gained, 50]], exact=True).pvalue if lost + gained else 1.0
    assert intervals.exact_mcnemar(lost, gained) == pytest.approx(expected)


def test_sign_flip_test_equals_scipy():
    changes = np.array([3, 1, 0, -1, 2, 1, 0, 1, -2, 1], dtype=float)
    exact = stats.permutation_test(
        (changes, np.zeros(10)), lambda a, b, axis: (a - b).sum(axis=axis), permutation_type="samples",
        n_resamples=np.inf, vectorized=True,
    )  # fmt: skip
    assert intervals.sign_flip_p(changes, 0, 20_000) == pytest.approx(exact.pvalue, abs=0.01)
    assert intervals.sign_flip_p(changes[::-1], 0, 500) == intervals.sign_flip_p(-changes, 0, 500)
    assert intervals.sign_flip_p(np.zeros(5), 0, 100) == 1


def test_one_image_per_product_is_the_plain_bootstrap():
    """With many products the interval is scipy's percentile interval of the mean."""
    hits = (np.arange(400) % 3 == 0).astype(float)
    draws = intervals.draw_products(400, 0, 8000)
    expected = stats.bootstrap((hits,), np.mean, method="percentile", n_resamples=8000, rng=1, vectorized=True)
    found = intervals.share_interval(hits, np.ones(400), draws)
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=0.006)


def test_correlated_images_of_a_product_add_no_information():
    """Ten equal images of each of 20 products tell what 20 images tell."""
    hits, draws = (np.arange(20) % 2).astype(float), intervals.draw_products(20, 0, 4000)
    ones = np.ones(20)
    assert intervals.share_interval(10 * hits, 10 * ones, draws) == intervals.share_interval(hits, ones, draws)


@pytest.mark.parametrize("n_products", [6, 30])
@pytest.mark.slow
def test_interval_covers_the_truth_in_95_percent_of_trials(n_products):
    """Products with an accuracy of their own around 0.6; plain percentiles cover 86 % of the time with 6 of them."""
    generator, inside = np.random.default_rng(3), 0
    for seed in range(400):
        n_images = generator.integers(1, 6, size=n_products)
        hits = generator.binomial(n_images, generator.beta(3, 2, size=n_products))
        draws = intervals.draw_products(n_products, seed, 1000)
        low, high = intervals.share_interval(hits.astype(float), n_images.astype(float), draws)
        inside += low <= 0.6 <= high
    assert 0.92 <= inside / 400 <= 0.98


def test_interval_of_all_correct_counts_products():
    draws, four_each = intervals.draw_products(10, 0, 100), np.full(10, 4.0)
    assert intervals.share_interval(np.zeros(10), four_each, draws) == intervals.wilson_interval(0, 10)
    assert intervals.share_interval(four_each, four_each, draws) == intervals.wilson_interval(10, 10)


def test_one_product_has_a_wide_interval_and_none_has_no_interval():
    low, high = intervals.share_interval(np.array([3.0]), np.array([4.0]), intervals.draw_products(1, 0, 100))
    assert high - low > 0.7
    assert intervals.difference_interval(np.zeros(100), 1) == (-1, 1)
    assert intervals.share_interval(np.zeros(3), np.zeros(3), intervals.draw_products(3, 0, 100)) is None


def test_products_without_images_are_ignored():
    """Two of thirty products show the category: as good as two."""
    among = np.zeros(30)
    among[:2] = 5
    low, high = intervals.share_interval(among, among, intervals.draw_products(30, 0, 500))
    assert (low, high) == intervals.wilson_interval(2, 2)


def test_detectable_difference_has_the_nominal_power():
    """Simulated: a true difference of that size is found by McNemar's test about four times in five."""
    n, discordant = 300, 0.4
    d = intervals.smallest_detectable_difference(n, discordant)
    generator = np.random.default_rng(0)
    draws = generator.multinomial(n, [(discordant + d) / 2, (discordant - d) / 2, 1 - discordant], size=400)
    found = [stats.binomtest(int(b), int(b + c)).pvalue < 0.05 for b, c, _ in draws]
    assert 0.7 < np.mean(found) < 0.88


def test_reference_experiment_could_detect_ten_points():
    assert intervals.smallest_detectable_difference(204, 0.25) == pytest.approx(0.098, abs=0.003)


@pytest.mark.parametrize("n", [1, 10, 81, 1000])
def test_detectable_difference_of_equal_models_is_not_zero(n):
    """A difference of d needs that share of discordant images: at least about 8 of them."""
    d = intervals.smallest_detectable_difference(n, 0.0)
    assert d == 1 if n < 8 else 6 < n * d < 9


def test_more_images_of_the_same_products_hardly_lower_the_detectable_difference():
    generator = np.random.default_rng(0)
    changes = generator.choice([-1, 0, 0, 1, 1], size=50).astype(float)
    once = intervals.smallest_detectable_difference_of_products(changes, 50)
    assert intervals.smallest_detectable_difference_of_products(4 * changes, 200) == pytest.approx(once)
    apart = intervals.smallest_detectable_difference_of_products(np.repeat(changes, 4), 200)
    assert apart == pytest.approx(once / 2)
    share = float(np.abs(changes).mean())
    assert once == pytest.approx(intervals.smallest_detectable_difference(50, share), rel=0.1)
    assert once == pytest.approx(2.8016 * math.sqrt(share / 50), rel=1e-3)


@pytest.mark.parametrize("n_products", [2, 5, 40])
def test_percentile_interval_is_expanded_by_the_t_distribution(n_products):
    """Hesterberg 2015: the tail is the normal probability of sqrt(n / (n - 1)) times Student's t quantile."""
    drawn = np.linspace(0, 1, 100_001)
    tail = stats.norm.sf(np.sqrt(n_products / (n_products - 1)) * stats.t(n_products - 1).ppf(0.975))
    assert intervals.percentile_interval(drawn, n_products) == pytest.approx((tail, 1 - tail), abs=1e-6)

"""The agreement of maps is 1 for equal maps, that of chance for random ones, and clustered by product."""

import numpy as np
import pytest
from scipy import stats

from skincare.evaluation import map_overlap

PRODUCTS = ["a", "a", "b", "b", "c", "c", "d", "d"]


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    return [rng.random(shape) for shape in ((6, 6), (4, 9)) * 4]


def test_the_overlap_counts_the_cells_of_both_tops():
    one, other = np.zeros((2, 5)), np.zeros((2, 5))
    one[0, :2], other[0, 1:3] = (2, 1), (1, 2)
    assert map_overlap.n_top(10) == 2
    assert map_overlap.top_overlap(one, other) == 1 / 3
    assert map_overlap.top_overlap(one, 5 * one + 1) == 1
    assert map_overlap.top_overlap(one, -one) == 0
    # Of equal cells the first count, so that a result can be repeated.
    assert map_overlap.top_overlap(one, np.zeros((2, 5))) == 1


@pytest.mark.parametrize("n_cells", [1, 3, 36, 100])
def test_chance_is_the_mean_over_random_orders(n_cells):
    rng = np.random.default_rng(1)
    drawn = [map_overlap.top_overlap(rng.random((1, n_cells)), rng.random((1, n_cells))) for _ in range(2000)]
    error = 3 * np.std(drawn) / len(drawn) ** 0.5
    assert map_overlap.chance_overlap(n_cells) == pytest.approx(np.mean(drawn), abs=error)


def test_the_correlation_is_that_of_ranks():
    rng = np.random.default_rng(2)
    one, other = rng.random((4, 5)), rng.integers(0, 4, (4, 5)).astype(float)
    expected = np.corrcoef(stats.rankdata(one), stats.rankdata(other))[0, 1]
    assert map_overlap.rank_correlation(one, other) == pytest.approx(expected)
    assert map_overlap.rank_correlation(one, np.exp(one)) == pytest.approx(1)
    assert map_overlap.rank_correlation(one, np.ones((4, 5))) == 0


def test_agreement_is_1_with_itself_and_that_of_chance_with_noise(maps):
    rng = np.random.default_rng(3)
    found = map_overlap.agreement(
        {"same": maps, "noise": [rng.random(one.shape) for one in maps]}, maps, PRODUCTS, seed=0
    )
    same, noise = found["same"], found["noise"]
    assert same["iou"] == same["correlation"] == pytest.approx(1)
    assert same["excess"] == pytest.approx(1 - same["other"])
    assert same["excess_low"] > 0.5
    assert noise["iou_low"] <= noise["iou"] <= noise["iou_high"]
    assert noise["excess_low"] < 0 < noise["excess_high"]
    assert noise["correlation_low"] < 0 < noise["correlation_high"]


def test_what_all_maps_share_is_no_excess(maps):
    """Maps that all prefer the same place agree by more than random cells, and not by more than another product's."""
    centre = np.add.outer(-np.abs(np.arange(6) - 2.5), -np.abs(np.arange(6) - 2.5))
    rng = np.random.default_rng(4)
    first, second = ([centre + 0.3 * rng.random((6, 6)) for _ in PRODUCTS] for _ in range(2))
    row = map_overlap.agreement({"late": first}, second, PRODUCTS, seed=0)["late"]
    assert row["iou_low"] > 2 * map_overlap.chance_overlap(36)
    assert row["excess_low"] < 0 < row["excess_high"]


def test_the_other_map_is_of_another_product():
    partners = map_overlap._partners(PRODUCTS, seed=0)
    assert all(PRODUCTS[i] != PRODUCTS[partner] for i, partner in enumerate(partners))
    row = map_overlap.agreement({"late": [np.eye(3)]}, [np.eye(3)], ["a"], seed=0)["late"]
    assert row["other"] is row["excess"] is None
    assert row["iou_low"] < row["iou"] == 1


def test_intervals_resample_products(maps):
    """Eight images of one product tell as little as one: the interval is that of a single value."""
    values = [0.1, 0.1, 0.9, 0.9, 0.2, 0.2, 0.8, 0.8]
    clustered = map_overlap.mean_share(values, PRODUCTS, seed=0)
    alone = map_overlap.mean_share(values, [str(i) for i in range(8)], seed=0)
    assert clustered["share"] == alone["share"] == pytest.approx(0.5)
    assert clustered["share_low"] < alone["share_low"]
    assert alone["share_high"] < clustered["share_high"]


def test_shares_in_boxes_are_those_of_each_image():
    left = np.array([[1.0, 0.0], [1.0, 0.0]])
    boxes = [(0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)]
    found = map_overlap.inside_boxes({"gradient": [left, left]}, boxes, ["a", "b"], seed=0)
    assert found["gradient"]["inside"] == found["gradient"]["pointing"] == 0.5
    assert found["area"]["inside"] == found["area"]["pointing"] == 0.5
    assert set(found) == {"gradient", "shuffled", "area"}
    assert found["gradient"]["n"] == found["gradient"]["n_products"] == 2


def test_the_seed_decides_controls_and_intervals(maps):
    boxes = [(0.0, 0.0, 0.5, 0.5)] * len(maps)

    def results(seed):
        return (
            map_overlap.inside_boxes({"gradient": maps}, boxes, PRODUCTS, seed),
            map_overlap.agreement({"late": maps[::-1]}, maps[::-1], PRODUCTS, seed),
        )

    assert results(0) == results(0)
    for one, other in zip(results(0), results(1), strict=True):
        assert one != other

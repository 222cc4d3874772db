"""Groups are not divided, every category is near its share, and equal inputs give equal splits."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skincare.dataset import splitting
from skincare.dataset.splitting import SHARES, Group
from skincare.labels import skincare_labels
from skincare.paths import SPLITS

CATEGORIES = skincare_labels().names


def shop(n_products: int, seed: int = 0) -> list[Group]:
    rng = random.Random(seed)
    return [
        Group(str(i), (str(i),), {rng.choices(CATEGORIES, range(1, 15))[0]: rng.randint(1, 5)})
        for i in range(n_products)
    ]


def shares(groups, split_of):
    filled = {split: Counter() for split in SPLITS}
    for group in groups:
        filled[split_of[group.group_id]].update(group.n_images)
    total = sum(filled.values(), Counter())
    return {split: {name: filled[split][name] / n for name, n in total.items()} for split in SPLITS}, total


@pytest.mark.parametrize("seed", range(3))
def test_every_category_is_near_its_share(seed):
    groups = shop(1000, seed)
    found, total = shares(groups, splitting.assign(groups, seed, {}))
    for split, share in SHARES.items():
        for category, n in total.items():
            # The smallest group decides how near: half a product either way.
            assert abs(found[split][category] - share) <= max(0.03, 2.5 / n), (split, category)


def test_every_split_has_every_category_that_three_groups_show():
    groups = [Group(f"{name}-{i}", (), {name: 1 + i}) for name in CATEGORIES for i in range(3)]
    found, _ = shares(groups, splitting.assign(groups, 0, {}))
    assert all(share > 0 for row in found.values() for share in row.values())


def test_the_split_depends_only_on_the_groups_and_the_seed():
    groups = shop(200)
    first = splitting.assign(groups, 7, {})
    assert splitting.assign(groups, 7, {}) == first
    assert splitting.assign(groups, 8, {}) != first


def test_new_products_do_not_move_frozen_ones():
    groups = shop(300)
    old = splitting.assign(groups[:200], 0, {})
    assert old.items() <= splitting.assign(groups, 0, old).items()


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=40))
def test_groups_are_the_connected_components(pairs):
    ids = [str(i) for i in range(31)]
    group_of = splitting.group_products(ids, [(str(a), str(b)) for a, b in pairs])
    component = {i: {i} for i in ids}
    for a, b in pairs:
        merged = component[str(a)] | component[str(b)]
        for member in merged:
            component[member] = merged
    for one in ids:
        assert {other for other in ids if group_of[other] == group_of[one]} == component[one]
        assert group_of[one] == min(component[one], key=int)


def test_a_split_by_image_is_seeded_and_does_not_depend_on_the_order():
    ids = [f"{p}_{n}" for p in range(50) for n in range(4)]
    test = splitting.split_by_image(ids, 3)
    assert test == splitting.split_by_image(ids[::-1], 3)
    assert len(test) == 40
    assert test != splitting.split_by_image(ids, 4)


def test_leakage_equals_values_counted_by_hand():
    train = [("1", "Peel"), ("1", "Oil"), ("1", "Oil"), ("2", "Balm"), ("3", "Oil")]
    test = [("1", "Oil"), ("2", "Balm"), ("4", "Oil"), ("5", "Peel"), ("1", "Mask")]
    leak = splitting.leakage(train, test, {"1": "1", "2": "2", "3": "3", "4": "3", "5": "5"})
    assert leak.n_test == 5
    assert leak.same_product == 3 / 5
    assert leak.same_group == 4 / 5
    # Products 1 and 2 predict Oil and Balm; 4 and 5 are new and predict the majority, Oil.
    assert leak.lookup_accuracy == 3 / 5
    assert leak.majority_accuracy == 2 / 5


def test_groups_count_images_by_category_in_natural_order():
    group_of = {"2": "2", "10": "2", "9": "9", "11": "11"}
    images = [("11", "Peel"), ("10", "Oil"), ("2", "Oil"), ("2", "Balm"), ("10", "Oil"), ("9", "Peel")]
    groups = splitting.make_groups(group_of, images)
    assert groups == [
        Group("2", ("2", "10"), {"Balm": 1, "Oil": 3}),
        Group("9", ("9",), {"Peel": 1}),
        Group("11", ("11",), {"Peel": 1}),
    ]
    assert list(groups[0].n_images) == ["Balm", "Oil"]


def test_an_empty_split_gets_the_smallest_group_whose_category_remains():
    groups = [Group("1", ("1",), {"Oil": 3}), Group("2", ("2",), {"Oil": 1}), Group("3", ("3",), {"Balm": 1})]
    split_of = dict.fromkeys("123", "train")
    splitting._fill_empty(groups, groups, split_of)
    assert split_of == {"1": "train", "2": "val", "3": "test"}

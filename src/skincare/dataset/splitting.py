"""Grouped, stratified splitting: whole groups of products go to train, val or test, every category near its share.

A group holds the images of a product, of its sizes ("50ml", "200ml") and of products that share an image: a model
trained on one of them has seen the others. The split depends only on the groups and the seed.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from skincare.paths import SPLITS
from skincare.tables import natural_key

SHARES: Final[dict[str, float]] = {"train": 0.7, "val": 0.15, "test": 0.15}


@dataclass(frozen=True)
class Group:
    """Products that share one split; the id is that of the first product. n_images: images by category."""

    group_id: str
    product_ids: tuple[str, ...]
    n_images: Mapping[str, int]


@dataclass(frozen=True)
class Leakage:
    """Overlap of test and training images, as fractions of the test images.

    same_product, same_group: test images whose product or group is in train. lookup_accuracy: accuracy of predicting
    the most frequent category of the product in train, or of all of train where the product is not in it.
    majority_accuracy: accuracy of always predicting the most frequent category of train.
    """

    n_test: int
    same_product: float
    same_group: float
    lookup_accuracy: float
    majority_accuracy: float


def group_products(product_ids: Iterable[str], links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return product id -> group id, the first product id of its connected component in the graph of links."""
    ids = sorted(set(product_ids), key=natural_key)
    place = {product_id: i for i, product_id in enumerate(ids)}
    edges = np.array([(place[one], place[other]) for one, other in links], dtype=np.intp).reshape(-1, 2)
    graph = coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(len(ids), len(ids)))
    labels = connected_components(graph, directed=False)[1]
    first: dict[int, str] = {}
    return {product_id: first.setdefault(int(label), product_id) for product_id, label in zip(ids, labels, strict=True)}


def make_groups(group_of: Mapping[str, str], images: Iterable[tuple[str, str]]) -> list[Group]:
    """Return the groups that have images, sorted by id; `images` are (product id, category) each."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    members: dict[str, set[str]] = defaultdict(set)
    for product_id, category in images:
        counts[group_of[product_id]][category] += 1
        members[group_of[product_id]].add(product_id)
    return [
        Group(group_id, tuple(sorted(members[group_id], key=natural_key)), dict(sorted(counts[group_id].items())))
        for group_id in sorted(members, key=natural_key)
    ]


def assign(groups: Sequence[Group], seed: int, frozen: Mapping[str, str]) -> dict[str, str]:
    """Return group id -> split with every category near SHARES.

    Greedy: the largest groups first, each to the split where it adds least to the squared distance from the shares.
    `frozen` groups keep their split. Then groups are moved so that every split has every category, as far as
    possible, and is not empty.
    """
    total: Counter[str] = Counter()
    for group in groups:
        total.update(group.n_images)
    filled: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    split_of: dict[str, str] = {}

    def place(group: Group, split: str) -> None:
        split_of[group.group_id] = split
        filled[split].update(group.n_images)

    def cost(group: Group, split: str) -> float:
        """Return the change of the squared relative distance from the shares."""
        return sum(
            ((filled[split][category] + n - SHARES[split] * total[category]) ** 2
             - (filled[split][category] - SHARES[split] * total[category]) ** 2) / (SHARES[split] * total[category])
            for category, n in group.n_images.items()
        )  # fmt: skip

    for group in groups:
        if group.group_id in frozen:
            place(group, frozen[group.group_id])
    free = [group for group in groups if group.group_id not in frozen]
    random.Random(seed).shuffle(free)
    for group in sorted(free, key=lambda group: -sum(group.n_images.values())):
        place(group, min(SPLITS, key=lambda split: cost(group, split)))
    _complete(free, groups, split_of)
    _fill_empty(free, groups, split_of)
    return split_of


def _complete(free: Sequence[Group], groups: Sequence[Group], split_of: dict[str, str]) -> None:
    """Move the smallest free groups so that every split has each category of which another split has two groups."""
    for category in sorted({name for group in groups for name in group.n_images}):
        holders = [group for group in groups if category in group.n_images]
        for split in SPLITS:
            n_in = Counter(split_of[group.group_id] for group in holders)
            movable = [group for group in free if group in holders and n_in[split_of[group.group_id]] > 1]
            if not n_in[split] and movable:
                group = min(movable, key=lambda one: (-n_in[split_of[one.group_id]], sum(one.n_images.values())))
                split_of[group.group_id] = split


def _fill_empty(free: Sequence[Group], groups: Sequence[Group], split_of: dict[str, str]) -> None:
    """Move a free group to every empty split: the smallest whose categories the split that it leaves still has.

    This concerns data sets of a few groups. A split stays empty where no split has two groups, one of them free.
    """
    for split in SPLITS:
        n_in = Counter(split_of.values())
        movable = [group for group in free if n_in[split_of[group.group_id]] > 1]
        if not n_in[split] and movable:
            holders = Counter((split_of[one.group_id], category) for one in groups for category in one.n_images)

            def loss(group: Group, holders: Counter[tuple[str, str]] = holders) -> tuple[bool, int]:
                source = split_of[group.group_id]
                is_last = any(holders[source, category] == 1 for category in group.n_images)
                return is_last, sum(group.n_images.values())

            split_of[min(movable, key=loss).group_id] = split


def split_by_image(image_ids: Sequence[str], seed: int, test_share: float = 0.2) -> set[str]:
    """Return the image ids of a test set drawn by image, as in the reference experiment; leaky, for comparison."""
    ordered = sorted(image_ids, key=natural_key)
    random.Random(seed).shuffle(ordered)
    return set(ordered[: round(len(ordered) * test_share)])


def leakage(train: Sequence[tuple[str, str]], test: Sequence[tuple[str, str]], group_of: Mapping[str, str]) -> Leakage:
    """Return the leakage between two non-empty sets of images, given as (product id, category) each."""
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for product_id, category in train:
        votes[product_id][category] += 1
    most_frequent = Counter(category for _, category in train).most_common(1)[0][0]
    groups = {group_of[product_id] for product_id in votes}

    def lookup(product_id: str) -> str:
        return votes[product_id].most_common(1)[0][0] if product_id in votes else most_frequent

    n = len(test)
    return Leakage(
        n_test=n,
        same_product=sum(product_id in votes for product_id, _ in test) / n,
        same_group=sum(group_of[product_id] in groups for product_id, _ in test) / n,
        lookup_accuracy=sum(lookup(product_id) == category for product_id, category in test) / n,
        majority_accuracy=sum(category == most_frequent for _, category in test) / n,
    )

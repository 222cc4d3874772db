"""Which images go to train, val and test: whole groups of products, every category in its share, repeatable.

A group is what must not be torn apart: the images of a product, the sizes of one product ("50ml", "200ml"), products
that share an image. A model that has seen one of them has seen the others.
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
    """Products that stay together, named after the first of them, with their images by category."""

    group_id: str
    product_ids: tuple[str, ...]
    n_images: Mapping[str, int]


@dataclass(frozen=True)
class Leakage:
    """What a split's test images have in common with its training images, as shares of the test images.

    lookup_accuracy: how often "the category that most training images of the product have" is right, and the most
    frequent category of all where the product is new; majority_accuracy: the latter for every image.
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
    """Return the groups that have images, given as (product id, category) each, sorted by id."""
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
    """Return group id -> split, so that every category comes near SHARES in every split.

    Greedy: the largest groups first, each to where it leaves the smallest squared distance from the shares; `frozen`
    groups stay where they are. Then every category that can be is brought into every split.
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
        """Return by how much the squared relative distance from the shares grows; a full split costs most."""
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
    """Move the smallest free groups so that no split lacks a category that has groups to spare."""
    for category in sorted({name for group in groups for name in group.n_images}):
        holders = [group for group in groups if category in group.n_images]
        for split in SPLITS:
            n_in = Counter(split_of[group.group_id] for group in holders)
            movable = [group for group in free if group in holders and n_in[split_of[group.group_id]] > 1]
            if not n_in[split] and movable:
                group = min(movable, key=lambda one: (-n_in[split_of[one.group_id]], sum(one.n_images.values())))
                split_of[group.group_id] = split


def _fill_empty(free: Sequence[Group], groups: Sequence[Group], split_of: dict[str, str]) -> None:
    """Give every empty split the free group that is missed least: of a category that stays where it was, and small.

    This matters for a handful of groups. A split stays empty where no free group can be spared.
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
    """Return the image ids of a test set drawn image by image, as the reference did; leaky, for comparison."""
    ordered = sorted(image_ids, key=natural_key)
    random.Random(seed).shuffle(ordered)
    return set(ordered[: round(len(ordered) * test_share)])


def leakage(train: Sequence[tuple[str, str]], test: Sequence[tuple[str, str]], group_of: Mapping[str, str]) -> Leakage:
    """Measure a split whose images are given as (product id, category)."""
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

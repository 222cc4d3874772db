"""A handful of products: every split gets one, or nothing is written."""

import pytest

import build_dataset
import clean
from skincare.dataset import splitting
from skincare.dataset.splitting import Group
from skincare.errors import StageError
from skincare.paths import SPLITS, Layout
from tests.dataset_helpers import CATEGORIES, jpeg, pack, write_catalogue, write_images


def cleaned(layout: Layout, categories: list[str], names: list[str] | None = None) -> None:
    """Write one image per product and clean them."""
    ids = [str(100 + i) for i in range(len(categories))]
    write_catalogue(layout, dict(zip(ids, categories, strict=True)), dict(zip(ids, names or ids, strict=True)))
    write_images(layout, {f"{product_id}_1": jpeg(pack(i, 400)) for i, product_id in enumerate(ids)})
    clean.run(clean.Config(root=layout.root), layout)


@pytest.mark.parametrize("n", [3, 4, 5, 8])
def test_every_split_gets_a_product(tmp_path, n):
    layout = Layout(tmp_path)
    cleaned(layout, list(CATEGORIES[:n]))
    summary = build_dataset.run(build_dataset.Config(root=tmp_path), layout)
    assert all(summary.counts[split] for split in SPLITS)
    assert sum(summary.counts.values()) == n


@pytest.mark.parametrize(
    ("categories", "names"), [(["Mask", "Oil"], None), (["Mask"] * 3, ["Rose (50ml)", "Rose (100ml)", "Lily"])]
)
def test_too_few_groups_stop_before_anything_is_written(tmp_path, categories, names):
    layout = Layout(tmp_path)
    cleaned(layout, categories, names)
    with pytest.raises(StageError, match="nothing was written"):
        build_dataset.run(build_dataset.Config(root=tmp_path), layout)
    assert not any(layout.dataset(split).exists() for split in SPLITS)
    assert not layout.split_manifest.exists()


def test_products_that_are_all_frozen_in_train_stop_it_too(tmp_path):
    layout = Layout(tmp_path)
    cleaned(layout, ["Mask", "Oil", "Serum"])
    layout.split_manifest.write_text(
        "product_id,group_id,category,split\n100,100,Mask,train\n101,101,Oil,train\n102,102,Serum,train\n"
    )
    with pytest.raises(StageError, match="--resplit"):
        build_dataset.run(build_dataset.Config(root=tmp_path), layout)


def test_an_empty_split_takes_a_group_whose_category_train_keeps():
    groups = [Group("1", ("1",), {"Mask": 1}), Group("2", ("2",), {"Oil": 5}), Group("3", ("3",), {"Oil": 9})]
    for seed in range(20):
        split_of = splitting.assign(groups, seed, {})
        assert set(split_of.values()) == set(SPLITS)
    frozen = {"1": "train", "4": "test"}
    groups.append(Group("4", ("4",), {"Mask": 1}))
    assert splitting.assign(groups, 0, frozen)["2"] == "val"

"""The dataset files have the contract's form, no product is in two splits, and the split is frozen."""

import json
import random

import pytest

import build_dataset
import clean
from skincare.cleaning import inspection
from skincare.errors import MissingInputError, StageError
from skincare.labels import skincare_labels
from skincare.paths import SPLITS, Layout
from skincare.tables import REJECTED
from skincare.tables import SPLITS as MANIFEST
from tests.dataset_helpers import jpeg, pack, write_catalogue, write_images

CATEGORIES = skincare_labels().names
QUESTION = skincare_labels().question

FIRST_ID = 10_000_000


def small_shop(layout, n_products=30, *, names=None, extra=None):
    """Products of three categories with two images each, cleaned."""
    ids = [str(FIRST_ID + i) for i in range(n_products)]
    categories = {product_id: CATEGORIES[i % 3] for i, product_id in enumerate(ids)}
    write_catalogue(layout, categories, names)
    images = {f"{product_id}_{n}": jpeg(pack(2 * i + n, 320)) for i, product_id in enumerate(ids) for n in (1, 2)}
    write_images(layout, {**images, **(extra or {})})
    clean.run(clean.Config(root=layout.root), layout)
    return ids


def build(layout, **config):
    summary = build_dataset.run(build_dataset.Config(root=layout.root, **config), layout)
    return {split: json.loads(layout.dataset(split).read_text()) for split in SPLITS}, summary


def product_ids(part):
    return {one["messages"][0]["content"][0]["image"].split("_")[-2] for one in part}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    layout = Layout(tmp_path_factory.mktemp("shop"))
    small_shop(layout)
    return layout


def test_an_element_is_what_the_contract_says(shop):
    parts, _ = build(shop)
    one = parts["train"][0]
    image = one["messages"][0]["content"][0]["image"]
    assert one == {
        "messages": [
            {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]},
            {"role": "assistant", "content": [{"type": "text", "text": one["messages"][1]["content"][0]["text"]}]},
        ]
    }
    assert (shop.root / image).is_file()
    assert image.startswith("clean_dataset/images/")


def test_no_product_is_in_two_splits(shop):
    parts, summary = build(shop)
    found = [product_ids(parts[split]) for split in SPLITS]
    assert all(found)
    assert sum(map(len, found)) == len(set.union(*found))
    assert summary.results["leakage"]["same_group"] == 0
    assert summary.results["leakage_if_split_by_image"]["same_product"] > 0.5


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(shop):
    def files():
        return [shop.dataset(split).read_bytes() for split in SPLITS] + [shop.split_manifest.read_bytes()]

    build(shop, resplit=True)
    first = files()
    build(shop)
    assert files() == first
    build(shop, resplit=True, seed=1)
    assert files() != first
    build(shop, resplit=True)
    assert files() == first


def test_sizes_of_one_product_stay_together(tmp_path):
    layout = Layout(tmp_path)
    names = {str(FIRST_ID + i): f"Noor Rose Face Oil {30 + i}ml" for i in range(0, 12, 3)}
    small_shop(layout, names=names)
    parts, _ = build(layout)
    assert len([split for split in SPLITS if product_ids(parts[split]) & names.keys()]) == 1


def test_products_that_share_an_image_stay_together(tmp_path):
    """The duplicate is rejected by the cleaning; its product still belongs to the one that kept the image."""
    layout = Layout(tmp_path)
    linked = [str(FIRST_ID + i) for i in (0, 3, 6, 9)]
    extra = {f"{product_id}_3": jpeg(pack(1, 320), 70 - i) for i, product_id in enumerate(linked[1:])}
    small_shop(layout, extra=extra)
    parts, _ = build(layout)
    assert len([split for split in SPLITS if product_ids(parts[split]) & set(linked)]) == 1


@pytest.mark.parametrize(("sharing", "reason"), [(range(0, 30, 3), "shared_image"), (range(2), "category_conflict")])
def test_images_that_are_rejected_with_all_their_duplicates_link_no_products(tmp_path, sharing, reason):
    layout = Layout(tmp_path)
    extra = {f"{FIRST_ID + i}_3": jpeg(pack(999, 320), 90 - i) for i in sharing}
    small_shop(layout)
    build(layout)
    before = {row.product_id: row.split for row in MANIFEST.read(layout.split_manifest)}
    small_shop(layout, extra=extra)
    assert [row.reason for row in REJECTED.read(layout.rejected_table)] == [reason] * len(extra)
    _, summary = build(layout)
    assert summary.results["n_groups_of_several_products"] == 0
    assert {row.product_id: row.split for row in MANIFEST.read(layout.split_manifest)} == before


def test_new_products_do_not_move_frozen_ones(tmp_path):
    layout = Layout(tmp_path)
    small_shop(layout, 24)
    build(layout)
    before = {row.product_id: row.split for row in MANIFEST.read(layout.split_manifest)}
    small_shop(layout, 36)
    build(layout)
    after = {row.product_id: row.split for row in MANIFEST.read(layout.split_manifest)}
    assert before.items() <= after.items()
    assert len(after) == 36


def test_a_new_link_between_frozen_splits_is_an_error(tmp_path):
    layout = Layout(tmp_path)
    small_shop(layout, 24)
    build(layout)
    of_split = {row.split: row.product_id for row in MANIFEST.read(layout.split_manifest)}
    i = int(of_split["train"]) - FIRST_ID
    same = [
        row for row in MANIFEST.read(layout.split_manifest) if row.split == "test" and row.category == CATEGORIES[i % 3]
    ]
    small_shop(layout, 24, extra={f"{same[0].product_id}_3": jpeg(pack(2 * i + 1, 320), 60)})
    with pytest.raises(StageError, match="--resplit"):
        build(layout)
    build(layout, resplit=True)


def test_a_split_by_image_reports_its_leakage(tmp_path):
    layout = Layout(tmp_path)
    small_shop(layout)
    parts, summary = build(layout, split="image")
    assert summary.results["leakage"]["same_product"] > 0.5
    assert summary.results["leakage"]["lookup_accuracy"] > 0.5
    assert parts["val"] == parts["test"]
    assert len(parts["test"]) == pytest.approx(0.2 * (len(parts["train"]) + len(parts["test"])), abs=1)
    assert "split by image" in summary.headline


def test_products_outside_the_catalogue_are_excluded_and_counted(tmp_path):
    layout = Layout(tmp_path)
    ids = small_shop(layout)
    rng = random.Random(0)
    kept = rng.sample(ids, 27)
    write_catalogue(layout, {product_id: CATEGORIES[(int(product_id) - FIRST_ID) % 3] for product_id in kept})
    parts, summary = build(layout)
    assert set(summary.results["products_not_in_catalogue"]) == set(ids) - set(kept)
    assert set.union(*(product_ids(part) for part in parts.values())) == set(kept)


def test_absent_inputs_name_their_stage(tmp_path):
    layout = Layout(tmp_path)
    with pytest.raises(MissingInputError, match="Kaggle"):
        build(layout)
    write_catalogue(layout, {"10000001": "Oil"})
    with pytest.raises(MissingInputError, match=r"clean\.py"):
        build(layout)


def test_images_with_cached_metrics_are_not_decoded_again(tmp_path, monkeypatch):
    layout = Layout(tmp_path)
    small_shop(layout, 12)
    with_store, _ = build(layout)
    layout.metrics_cache.unlink()
    remeasured, _ = build(layout)
    assert remeasured == with_store
    monkeypatch.setattr(inspection, "inspect_file", lambda path: pytest.fail(f"{path} was decoded"))
    assert build(layout)[0] == remeasured, "metrics computed here are cached too"


def test_an_image_that_changed_after_cleaning_is_measured_again(tmp_path):
    layout = Layout(tmp_path)
    ids = small_shop(layout, 12)
    one, other = ids[0], ids[3]
    (layout.clean_images / f"pack-{other}_{other}_1.jpg").write_bytes(jpeg(pack(1, 320), 80))
    parts, _ = build(layout)
    assert len([split for split in SPLITS if product_ids(parts[split]) & {one, other}]) == 1


def test_a_kept_image_that_is_broken_is_an_error(tmp_path):
    layout = Layout(tmp_path)
    ids = small_shop(layout, 12)
    (layout.clean_images / f"pack-{ids[0]}_{ids[0]}_1.jpg").write_bytes(b"<html>")
    with pytest.raises(StageError, match=r"not_an_image[\s\S]*clean\.py"):
        build(layout)

"""Write the cleaned images as chat-format train, val and test files, split by product.

- In: clean_dataset/annotations/{clean_annotations,rejected}.csv, clean_dataset/images/, the catalogue; for hints
  clean_dataset/annotations/pack_text.jsonl or csv_data/products_metadata.csv; with --target product
  clean_dataset/annotations/products.jsonl (product_facts.py).
- Out: clean_dataset/{train,val,test}.json, clean_dataset/split_manifest.csv, plots/dataset_split.png.
- Command: python src/build_dataset.py        70 / 15 / 15 %; no product, size of it or shared image in two splits
- python src/build_dataset.py --split image   80 / 20 % by image as in the reference experiment, to compare the leakage
- python src/build_dataset.py --cropped       the same split of the product crops of crop.py
- python src/build_dataset.py --hint text     the question with the text that read_text.py read on the pack
- python src/build_dataset.py --target product   the answers are products as JSON, null where a value is not known
- Time: 1 s for 1,000 images that clean.py has measured, on two cores; 8 s for others.

The manifest freezes the split of every product: images and products that are added later never move it. --resplit
discards it.
"""

import dataclasses
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from skincare import runlog, stage
from skincare.catalogue import Product, read_products
from skincare.cleaning.image_tables import CROPPED
from skincare.cleaning.verification import near_duplicate_rows
from skincare.dataset import chat, hints, split_plot, splitting
from skincare.dataset.chat import Example
from skincare.errors import StageError
from skincare.labels import Labels, labels_of
from skincare.paths import SPLITS, Layout
from skincare.product import store
from skincare.product.schema import FIELDS
from skincare.product.sizes import name_family
from skincare.prompts import HintKind, Target, labels_for
from skincare.runlog import Summary
from skincare.tables import CLEAN, REJECTED, CleanRow, RejectedRow, SplitRow
from skincare.tables import SPLITS as MANIFEST

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """Options of the stage."""

    resumes: ClassVar[bool] = False

    target: Target = "category"
    """What the model answers with: the category, or the product as JSON (brand, category, size, ...)."""
    fields: tuple[str, ...] = FIELDS
    """With --target product, the fields that are answered; the others are null in every answer."""
    split: Literal["product", "image"] = "product"
    """Split by product, or by image as in the reference experiment (leaky, to compare)."""
    seed: int = 0
    """Seed of the split."""
    resplit: bool = False
    """Discard the frozen split of earlier runs."""
    cropped: Annotated[bool, tyro.conf.arg(aliases=("--focused",))] = False
    """Use the product crops of clean_dataset/focused/ instead of clean_dataset/images/."""
    hint: HintKind = "none"
    """Hint after the question: text read on the pack, or the shop's metadata (brand, size, price, ingredients)."""
    hint_bytes: int = hints.MAX_BYTES
    """Maximum length of a hint in UTF-8 bytes; a token takes one byte or more, four on average."""
    hint_with_name: bool = False
    """Include the product's name in the metadata; it usually contains the category, so the report warns about it."""
    catalogue: Path | None = None
    """Catalogue to read instead of csv_data/skincare_products_clean.csv."""


def run(config: Config, layout: Layout) -> Summary:
    """Join the categories, group the products, split, check for leakage, write."""
    _check(config)
    labels = labels_of(layout)
    catalogue = read_products(config.catalogue or layout.catalogue, labels)
    products = {product.product_id: product for product in catalogue.products}
    rows = CLEAN.read(layout.clean_table)
    unknown_ids = sorted({row.product_id for row in rows if row.product_id not in products})
    if unknown_ids:
        logger.warning(
            "%d products are not in the catalogue and are excluded: %s", len(unknown_ids), ", ".join(unknown_ids[:20])
        )
    rows = [row for row in rows if row.product_id in products]
    if len({row.product_id for row in rows}) < len(SPLITS):
        raise StageError(
            f"{layout.clean_table}: {len(rows)} images of fewer than {len(SPLITS)} products are too few to split; "
            "nothing was written. See log/cleaning_report.log"
        )
    file_of = _cropped_files(rows, layout) if config.cropped else {row.image_id: row.file for row in rows}
    hint_of = hints.hints_of(config.hint, rows, layout, config.hint_bytes, with_name=config.hint_with_name)
    categories = {row.product_id: products[row.product_id].category for row in rows}
    answers = (
        store.structured_answers(layout.product_facts, categories, config.fields) if config.target == "product" else {}
    )
    prompted = labels_for(config.target, labels)
    examples = [
        chat.example(
            file_of[row.image_id], products[row.product_id].category, prompted, hint_of[row.image_id],
            answers.get(row.product_id, ""),
        )
        for row in rows
    ]  # fmt: skip
    links = _links(rows, REJECTED.read(layout.rejected_table), products, layout)
    group_of = splitting.group_products(products, links)
    groups = splitting.make_groups(group_of, [(one.product_id, one.category) for one in examples])
    manifest: list[SplitRow] = []
    if config.split == "product":
        parts, manifest = _split_by_product(config, layout, groups, group_of, examples, products)
    else:
        parts = _split_by_image(config, examples)
    results = _results(config, parts, groups, group_of, labels)
    results["products_not_in_catalogue"] = unknown_ids
    # The earlier split is kept until this one has passed the leakage check.
    runlog.remove_summary("build_dataset", layout)
    if manifest:
        MANIFEST.write(layout.split_manifest, manifest)
    for split, part in parts.items():
        chat.write_dataset(layout, split, part)
    counts = {split: Counter(one.category for one in part) for split, part in parts.items()}
    split_plot.draw_dataset_split(counts, labels.names, layout.plot("dataset_split"))
    leak = results["leakage"]
    return Summary(
        headline=f"{', '.join(f'{split} {len(part):,}' for split, part in parts.items())} images of "
        f"{len({one.product_id for one in examples}):,} products, split by {config.split}: "
        f"{leak['same_group']:.1%} of the test images show a product that is also in train",
        counts={split: len(part) for split, part in parts.items()},
        results=results,
    )


def _check(config: Config) -> None:
    """Raise StageError for options that contradict each other."""
    if config.hint_bytes < 1:
        raise StageError("--hint-bytes must be at least 1; --hint none switches hints off")
    if config.hint_with_name and config.hint != "metadata":
        raise StageError("--hint-with-name needs --hint metadata")
    store.check_fields(config.fields)
    if config.target == "category" and config.fields != FIELDS:
        raise StageError("--fields needs --target product")


def _cropped_files(rows: Sequence[CleanRow], layout: Layout) -> dict[str, str]:
    """Return image id -> product crop; raises StageError where crop.py has not seen the current cleaned images."""
    cropped = {row.image_id: row for row in CROPPED.read(layout.crop_table)}
    outdated = [
        row.image_id
        for row in rows
        if row.image_id not in cropped
        or cropped[row.image_id].source_sha256 != row.sha256
        or not (layout.root / cropped[row.image_id].file).is_file()
    ]
    if outdated:
        raise StageError(
            f"{layout.crop_table}: the crops of {len(outdated)} of {len(rows)} images are missing or out of date, such "
            f"as {outdated[0]}\nRun `python src/crop.py` again."
        )
    return {image_id: row.file for image_id, row in cropped.items()}


def _links(
    rows: Sequence[CleanRow], rejected: Sequence[RejectedRow], products: Mapping[str, Product], layout: Layout
) -> list[tuple[str, str]]:
    """Return the pairs of products that must be in one split: same name family, or a shared image."""
    families: dict[str, str] = {}
    links = [
        (product.product_id, families.setdefault(name_family(product.name), product.product_id))
        for product in products.values()
    ]
    # A rejected duplicate links its product with that of its representative, as long as that image is kept: an image
    # that was rejected together with its duplicates can leak nothing.
    kept = {row.image_id for row in rows}
    links += [
        (row.product_id, row.duplicate_of.rpartition("_")[0])
        for row in rejected
        if row.duplicate_of in kept and row.product_id in products
    ]
    links += [(rows[i].product_id, rows[j].product_id) for i, j in near_duplicate_rows(rows, layout)]
    return [(one, other) for one, other in links if one != other]


def _split_by_product(
    config: Config, layout: Layout, groups: Sequence[splitting.Group], group_of: Mapping[str, str],
    examples: Sequence[Example], products: Mapping[str, Product],
) -> tuple[dict[str, list[Example]], list[SplitRow]]:  # fmt: skip
    """Return the examples by split, with frozen products where the manifest has them, and the new manifest."""
    manifest = [] if config.resplit or not layout.split_manifest.is_file() else MANIFEST.read(layout.split_manifest)
    frozen = _frozen(manifest, group_of)
    split_of = splitting.assign(groups, config.seed, frozen)
    _check_filled(split_of, layout)
    present = {product_id for group in groups for product_id in group.product_ids}
    rows = [row for row in manifest if row.product_id not in present] + [
        SplitRow(product_id, group.group_id, products[product_id].category, split_of[group.group_id])
        for group in groups
        for product_id in group.product_ids
    ]
    return {split: [one for one in examples if split_of[group_of[one.product_id]] == split] for split in SPLITS}, rows


def _check_filled(split_of: Mapping[str, str], layout: Layout) -> None:
    """Raise StageError for an empty split: fewer groups than splits, or the frozen groups are in other splits."""
    empty = [split for split in SPLITS if split not in split_of.values()]
    if empty:
        raise StageError(
            f"{layout.clean_table}: {len(split_of)} groups of products (those of one name or image count as one) leave "
            f"{' and '.join(empty)} empty; nothing was written. Add products, or lift a frozen split with --resplit."
        )


def _frozen(manifest: Sequence[SplitRow], group_of: Mapping[str, str]) -> dict[str, str]:
    """Return group id -> frozen split; raises StageError for a group with products frozen in two splits."""
    frozen: dict[str, str] = {}
    for row in manifest:
        if row.split not in SPLITS:
            raise StageError(f"split_manifest.csv: {row.split!r} is not a split\n{MANIFEST.remedy}")
        group_id = group_of.get(row.product_id)
        if group_id is not None and frozen.setdefault(group_id, row.split) != row.split:
            raise StageError(
                f"Product {row.product_id} is frozen in {row.split}, but now shares an image or a name with a product "
                f"in {frozen[group_id]} (group {group_id}). Remove the image, or run with --resplit; results before "
                "and after it cannot be compared."
            )
    return frozen


def _split_by_image(config: Config, examples: Sequence[Example]) -> dict[str, list[Example]]:
    test_ids = splitting.split_by_image([one.image_id for one in examples], config.seed)
    test = [one for one in examples if one.image_id in test_ids]
    # The reference experiment used its test images for early stopping too.
    return {"train": [one for one in examples if one.image_id not in test_ids], "val": test, "test": test}


def _results(
    config: Config, parts: Mapping[str, Sequence[Example]], groups: Sequence[splitting.Group],
    group_of: Mapping[str, str], labels: Labels,
) -> dict[str, Any]:  # fmt: skip
    """Return the results for the report; raises StageError when a split by product leaks."""
    pairs = {split: [(one.product_id, one.category) for one in part] for split, part in parts.items()}
    measured = {split: splitting.leakage(pairs["train"], pairs[split], group_of) for split in ("val", "test")}
    if config.split == "product" and any(leak.same_group for leak in measured.values()):
        raise StageError("The split leaks: a group of products is in train and in val or test. This is a bug.")
    by_image = _split_by_image(config, list({one.image_id: one for part in parts.values() for one in part}.values()))
    train, test = ([(one.product_id, one.category) for one in by_image[split]] for split in ("train", "test"))
    compared = splitting.leakage(train, test, group_of)
    table = {
        split: {
            category: [
                sum(one.category == category for one in part),
                len({one.product_id for one in part if one.category == category}),
            ]
            for category in labels.names
        }
        for split, part in parts.items()
    }
    absent = {split: [name for name, (n, _) in row.items() if not n] for split, row in table.items()}
    for split, names in absent.items():
        if names:
            logger.warning("%s has no image of: %s", split, ", ".join(names))
    return {
        "split": config.split,
        **({"target": config.target, "fields": config.fields} if config.target == "product" else {}),
        "cropped": config.cropped,
        "hints": {
            "kind": config.hint,
            "with_name": config.hint_with_name,
            "images_with_one": {split: sum(bool(one.hint) for one in part) for split, part in parts.items()},
        },
        "images_and_products": table,
        "n_groups": len(groups),
        "n_groups_of_several_products": sum(len(group.product_ids) > 1 for group in groups),
        "groups_of_several_categories": [group.group_id for group in groups if len(group.n_images) > 1],
        "categories_absent": absent,
        "leakage": dataclasses.asdict(measured["test"]),
        "leakage_if_split_by_image": dataclasses.asdict(compared),
    }


def main() -> None:
    """Run the stage from the command line."""
    stage.main("build_dataset", Config, run)


if __name__ == "__main__":
    main()

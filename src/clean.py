"""Keep the pictures that are whole, large, sharp and not a copy of another one.

In: csv_data/images_id_full.csv, product_images/, the catalogue (for the categories of copies).
Out: clean_dataset/images/ (copies; the originals are never touched),
clean_dataset/annotations/{clean_annotations,rejected}.csv, log/cleaning_report.log, plots/blur_histogram.png.
Command: python src/clean.py [--min-sharpness 60] [--min-side-px 300]
Time: 25 s for 1,000 pictures of 1,000 x 1,000 pixels on two cores.

Of several copies of a picture the largest stays; of equally large ones the least compressed (most bytes); of equal
ones the lowest image id. A picture that two categories share is no good for either: all its copies go, as
`category_conflict`.
"""

import logging
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from skincare import cleaning_report, duplicates, figures, inspection, quality, reference, stage
from skincare.catalogue import read_products
from skincare.errors import StageError
from skincare.files import replacing, write_text
from skincare.inspection import Inspection, Limits, Measures
from skincare.paths import Layout
from skincare.runlog import Summary
from skincare.tables import CLEAN, IMAGES, REJECTED, CleanRow, ImageRow, RejectedRow, natural_key

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """What the stage can be told."""

    min_side_px: int = 300
    """Least width and height."""
    min_sharpness: float = quality.MIN_SHARPNESS
    """Least variance of the Laplacian, of the content at one size and contrast."""
    catalogue: Path | None = None
    """Catalogue to read instead of csv_data/skincare_products_clean.csv."""


def run(config: Config, layout: Layout) -> Summary:
    """Look at every picture, decide, copy what stays."""
    catalogue = read_products(config.catalogue or layout.catalogue)
    category_of = {product.product_id: product.category for product in catalogue.products}
    rows = IMAGES.read(layout.images_table)
    if not rows:
        raise StageError(f"{layout.images_table}: no pictures; see log/scraper.log and csv_data/scrape_failures.csv")
    inspections = _inspect_all(rows, layout, Limits(config.min_side_px, config.min_sharpness))
    good = [(one.row, one.measures) for one in inspections if one.measures and not one.rejection]
    rejected = [one.rejection for one in inspections if one.rejection] + reject_copies(good, category_of)
    rejected.sort(key=lambda row: natural_key(row.image_id))
    n_rejected = {row.image_id for row in rejected}
    kept = [(row, measures) for row, measures in good if row.image_id not in n_rejected]
    _copy([row for row, _ in kept], layout)
    CLEAN.write(layout.clean_table, [_clean_row(row, measures, layout) for row, measures in kept])
    REJECTED.write(layout.rejected_table, rejected)
    measured = [one.measures.sharpness for one in inspections if one.measures]
    figures.draw_blur_histogram(measured, config.min_sharpness, layout.plot("blur_histogram"))
    counts = {"kept": len(kept), **dict(sorted(Counter(row.reason for row in rejected).items()))}
    results = _results(rows, kept, rejected, inspections, category_of, config)
    write_text(layout.cleaning_report, cleaning_report.render(counts, results, rejected))
    return Summary(
        headline=f"read {len(rows):,} pictures, kept {len(kept):,}; {_listed(counts)}; "
        f"see {layout.relative(layout.cleaning_report)}",
        counts=counts,
        results=results,
    )


def _inspect_all(rows: Sequence[ImageRow], layout: Layout, limits: Limits) -> list[Inspection]:
    """Inspect all pictures in the order of their ids; a repeated id is rejected where it is repeated."""
    ordered = sorted(rows, key=lambda row: natural_key(row.image_id))
    repeated = [image_id for image_id, n in Counter(row.image_id for row in ordered).items() if n > 1]
    if repeated:
        raise StageError(f"{layout.images_table}: image_id {repeated[0]} stands there more than once\n{IMAGES.remedy}")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(partial(inspection.inspect, layout, limits=limits), ordered)
        return list(tqdm(found, "clean", len(ordered), unit="picture", disable=None))


def reject_copies(pictures: Sequence[tuple[ImageRow, Measures]], category_of: Mapping[str, str]) -> list[RejectedRow]:
    """Return a row for each picture that is a copy of one that stays, or that two categories share."""
    copies_of = _copies(pictures)
    category = [category_of.get(row.product_id) for row, _ in pictures]
    conflicts = {
        i: next(iter(other)) for i in copies_of if (other := [j for j in copies_of[i] if category[j] != category[i]])
    }
    rejected = [
        inspection.rejection(
            pictures[i][0], "category_conflict", f"{category[i]} and {category[j]}", "", pictures[j][0].image_id
        )
        for i, j in conflicts.items()
    ]
    keeper_of: dict[int, int] = {}
    for i in sorted(set(range(len(pictures))) - set(conflicts), key=lambda i: _preference(*pictures[i])):
        if i not in keeper_of:
            keeper_of.update({j: i for j in copies_of[i] if j not in keeper_of and j not in conflicts})
            keeper_of[i] = i
    return rejected + [_copy_row(pictures[i], pictures[j]) for i, j in sorted(keeper_of.items()) if i != j]


def _copies(pictures: Sequence[tuple[ImageRow, Measures]]) -> dict[int, list[int]]:
    """Return for each picture the places of its copies: equal pixels or, where there is contrast, about equal ones."""
    pairs = set(duplicates.same_pictures([measures.fingerprint for _, measures in pictures]))
    by_pixels: dict[str, list[int]] = defaultdict(list)
    for i, (_, measures) in enumerate(pictures):
        pairs.update((j, i) for j in by_pixels[measures.pixels_sha256])
        by_pixels[measures.pixels_sha256].append(i)
    copies: dict[int, list[int]] = defaultdict(list)
    for i, j in sorted(pairs):
        copies[i].append(j)
        copies[j].append(i)
    return copies


def _preference(row: ImageRow, measures: Measures) -> tuple[int, int, Any]:
    return -measures.width * measures.height, -measures.n_bytes, natural_key(row.image_id)


def _copy_row(copy: tuple[ImageRow, Measures], keeper: tuple[ImageRow, Measures]) -> RejectedRow:
    (row, measures), (kept_row, kept) = copy, keeper
    if measures.sha256 == kept.sha256:
        return inspection.rejection(row, "duplicate_bytes", "", "", kept_row.image_id)
    if measures.pixels_sha256 == kept.pixels_sha256:
        return inspection.rejection(row, "duplicate_pixels", "", "", kept_row.image_id)
    assert measures.fingerprint and kept.fingerprint
    value = duplicates.difference(measures.fingerprint, kept.fingerprint)
    return inspection.rejection(row, "near_duplicate", f"{value:.3f}", "1", kept_row.image_id)


def _copy(rows: Sequence[ImageRow], layout: Layout) -> None:
    """Make clean_dataset/images/ hold just these pictures."""
    layout.clean_images.mkdir(parents=True, exist_ok=True)
    wanted = {Path(row.file).name for row in rows}
    for path in layout.clean_images.iterdir():
        if path.name not in wanted and path.suffix in (".jpg", ".part"):
            path.unlink()
    for row in rows:
        with replacing(layout.clean_images / Path(row.file).name) as temporary:
            shutil.copyfile(layout.root / row.file, temporary)


def _clean_row(row: ImageRow, measures: Measures, layout: Layout) -> CleanRow:
    return CleanRow(
        product_url=row.product_url,
        image_id=row.image_id,
        product_id=row.product_id,
        file=layout.relative(layout.clean_images / Path(row.file).name),
        width=measures.width,
        height=measures.height,
        sharpness=round(measures.sharpness.content, 2),
        plain_sharpness=round(measures.sharpness.plain, 2),
        sha256=measures.sha256,
        dhash_16x16=measures.dhash,
    )


def _results(
    rows: Sequence[ImageRow], kept: Sequence[tuple[ImageRow, Measures]], rejected: Sequence[RejectedRow],
    inspections: Sequence[Inspection], category_of: Mapping[str, str], config: Config,
) -> dict[str, Any]:  # fmt: skip
    """Return what report and cleaning report show beside the counts."""
    sharpness = [one.measures.sharpness for one in inspections if one.measures]
    limits = sorted({20.0, 40.0, 60.0, 80.0, 100.0, 150.0, config.min_sharpness})
    products, with_picture = {row.product_id for row in rows}, {row.product_id for row, _ in kept}
    lost = sorted(products - with_picture, key=natural_key)
    return {
        "seen": len(rows),
        "products_seen": len(products),
        "products_kept": len(with_picture),
        "products_lost": lost,
        "products_lost_by_category": dict(
            sorted(Counter(category_of.get(one, "not in catalogue") for one in lost).items())
        ),
        "sharp_at_limit": {f"{limit:g}": sum(one.content >= limit for one in sharpness) for limit in limits},
        "plain_sharp_at_limit": {f"{limit:g}": sum(one.plain >= limit for one in sharpness) for limit in limits},
        # Sharp by the content, blurred by the reference's measure: kept, and worth a look.
        "kept_against_plain_rule": sorted(
            (row.image_id for row, measures in kept if measures.sharpness.plain < config.min_sharpness), key=natural_key
        ),
        "conflicts": _conflicts(rejected),
        "n_equal_hashes": _n_equal_hashes([measures for _, measures in kept]),
        "reference": reference.CLEANING,
    }


def _conflicts(rejected: Sequence[RejectedRow]) -> list[list[str]]:
    """Return [image id, image id, their categories], each pair once."""
    pairs = {
        frozenset((row.image_id, row.duplicate_of)): [row.image_id, row.duplicate_of, row.value]
        for row in reversed(rejected)
        if row.reason == "category_conflict"
    }
    return sorted(pairs.values(), key=lambda pair: natural_key(pair[0]))


def _n_equal_hashes(kept: Sequence[Measures]) -> int:
    """Return how many kept, so different, pictures an equal 256-bit difference hash would have thrown away."""
    return len(kept) - len({measures.dhash for measures in kept})


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {n}" for reason, n in counts.items() if reason != "kept") or "nothing rejected"


def main() -> None:
    """Run the stage from the command line."""
    stage.main("clean", Config, run)


if __name__ == "__main__":
    main()

"""Keep the images that are intact, large enough, sharp and not a duplicate.

In: csv_data/images_id_full.csv, product_images/, the catalogue (for the categories of duplicates).
Out: clean_dataset/images/ (copies; the originals are never touched),
clean_dataset/annotations/{clean_annotations,rejected}.csv, log/cleaning_report.log, plots/blur_histogram.png.
Command: python src/clean.py [--min-sharpness 60] [--min-side-px 300] [--skip dark] [--also greyscale]
         python src/clean.py --review blurred        a page to mark images around a threshold
         python src/clean.py --calibrate MARKS.csv   evaluate the threshold on the marks
         python src/clean.py --rules reference       the rules of the reference experiment
         python src/clean.py --engine ray            on a cluster (RAY_ADDRESS), or on this machine's cores
Time: 4 s for 1,000 images of 1,000 x 1,000 pixels on two cores; a second run measures only new and changed images.

Worker processes inspect the images: one that crashes or hangs its decoder is rejected, the others are unaffected.

All checks with their thresholds and defaults are one table, skincare/cleaning/checks.py. The first check that fails
is the image's reason. An image that two categories share is rejected for both, as `category_conflict`; which other
duplicate is the representative is decided in skincare/cleaning/duplicates.py.
"""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from skincare import reference_experiment, runlog, stage, worker_pool
from skincare.catalogue import read_products
from skincare.cleaning import (
    batch_inspection,
    checks,
    cleaning_report,
    duplicates,
    inspection,
    quality,
    sharpness_plot,
    threshold_review,
)  # fmt: skip
from skincare.cleaning.checks import Choice, ImageReason, Reason, Rules
from skincare.cleaning.duplicates import Products, Similarities
from skincare.cleaning.inspection import ImageMetrics, Inspection
from skincare.cleaning.metrics_cache import MetricsCache
from skincare.errors import StageError
from skincare.files import copy_if_changed, write_text
from skincare.labels import labels_of
from skincare.paths import Layout
from skincare.runlog import Summary
from skincare.tables import CLEAN, IMAGES, REJECTED, CleanRow, ImageRow, RejectedRow, natural_key
from skincare.worker_pool import Engine

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """Options of the stage."""

    min_side_px: int | None = None
    """Least longer side of the product, 128 if left out; with `--rules reference` least side of the frame, 300."""
    min_sharpness: float = quality.MIN_SHARPNESS
    """Least variance of the Laplacian, of the content at one size and contrast."""
    thresholds: Annotated[dict[str, float], tyro.conf.arg(aliases=("--limits",))] = field(default_factory=dict)
    """Thresholds that replace those of the table of checks, such as `dark 40 odd_shape 3`."""
    rules: Rules = "content"
    """Which checks reject: those of this pipeline, of the reference experiment, or of that with its hash corrected."""
    skip: tuple[Reason, ...] = ()
    """Checks that reject nothing."""
    only: tuple[Reason, ...] = ()
    """The only checks that reject, in addition to those of broken files."""
    also: tuple[Reason, ...] = ()
    """Further checks that reject."""
    shared_by: int = checks.SHARED_BY
    """Reject an image of at least this many products, such as a placeholder; sizes of a product count once."""
    engine: Engine = "local"
    """Where metrics are computed: on this machine's cores, or by Ray."""
    remeasure: bool = False
    """Compute all metrics again, even of unchanged files."""
    review: ImageReason | None = None
    """Write a page to mark images around the threshold of this check, without cleaning."""
    calibrate: Path | None = None
    """Marks saved from that page: evaluate the threshold on them, without cleaning."""
    keep_good: float | None = None
    """Share of the good images that a threshold proposed by --calibrate must keep; the best balance if left out."""
    catalogue: Path | None = None
    """Catalogue to read instead of csv_data/skincare_products_clean.csv."""

    @property
    def writes_summary(self) -> bool:
        """Return whether images are cleaned, or only thresholds reviewed."""
        return self.review is None and self.calibrate is None

    def choice(self, rules: Rules) -> Choice:
        """Return the checks of a set of rules with the requested thresholds."""
        thresholds = {"blurred": self.min_sharpness, **self.thresholds}
        if self.min_side_px is not None:
            thresholds.setdefault("too_small", self.min_side_px)
        return checks.choose(
            rules, thresholds, only=self.only, also=self.also, skip=self.skip, shared_by=self.shared_by
        )


def run(config: Config, layout: Layout) -> Summary:
    """Inspect every image, apply the checks, copy the kept images."""
    if config.calibrate:
        return threshold_review.calibrate(config.calibrate, config.review, config.keep_good, layout)
    choice = config.choice(config.rules)
    products = Products.of(read_products(config.catalogue or layout.catalogue, labels_of(layout)).products)
    rows = _rows(layout)
    with MetricsCache(layout.metrics_cache) as store:
        inspections = batch_inspection.inspect_all(rows, layout, store, config.engine, is_remeasured=config.remeasure)
        good = [(one.row, one.metrics) for one in inspections if one.metrics]
        if config.review:
            return threshold_review.review_check(choice.check(config.review), good, layout)
        similarities = duplicates.find_similarities(good, store, layout)
    rejected = [one.rejection for one in inspections if one.rejection] + decide(good, similarities, products, choice)
    rejected.sort(key=lambda row: natural_key(row.image_id))
    gone = {row.image_id for row in rejected}
    kept = [(row, metrics) for row, metrics in good if row.image_id not in gone]
    threshold = choice.check("blurred").threshold
    counts = {"kept": len(kept), **dict(sorted(Counter(row.reason for row in rejected).items()))}
    rejected_text = runlog.counts_text(counts, "kept", empty="nothing rejected")
    if not kept:
        # Do not delete the result of an earlier run: most likely the images were moved.
        raise StageError(f"Of {len(rows):,} images none would be kept ({rejected_text}); nothing was changed")
    runlog.remove_summary("clean", layout)
    with worker_pool.run_alongside(
        sharpness_plot.draw_blur_histogram, [one.sharpness for _, one in good], threshold, layout.plot("blur_histogram")
    ):
        results = _results(rows, kept, rejected, inspections, products, threshold)
        results["checks"] = _failing(choice, [metrics for _, metrics in good])
        results["against_reference"] = {
            other: _compare(good, similarities, products, other) for other in ("reference", "reference_mended")
        }
        _copy([row for row, _ in kept], layout)
    CLEAN.write(layout.clean_table, [_clean_row(row, metrics, layout) for row, metrics in kept])
    REJECTED.write(layout.rejected_table, rejected)
    write_text(layout.cleaning_report, cleaning_report.render(counts, results, rejected))
    return Summary(
        headline=f"read {len(rows):,} images, kept {len(kept):,}; {rejected_text}; "
        f"see {layout.relative(layout.cleaning_report)}",
        counts=counts,
        results=results,
    )


def _rows(layout: Layout) -> list[ImageRow]:
    """Return the rows of all images in the order of their ids; a repeated id is an error."""
    rows = IMAGES.read(layout.images_table)
    if not rows:
        raise StageError(f"{layout.images_table}: no images; see log/scraper.log and csv_data/scrape_failures.csv")
    repeated = [image_id for image_id, n in Counter(row.image_id for row in rows).items() if n > 1]
    if repeated:
        raise StageError(f"{layout.images_table}: image_id {repeated[0]} appears more than once\n{IMAGES.remedy}")
    return sorted(rows, key=lambda row: natural_key(row.image_id))


def decide(
    images: duplicates.Images, similarities: Similarities, products: Products, choice: Choice
) -> list[RejectedRow]:
    """Return a row for each image that a check rejects."""
    rejected, good = [], []
    for row, metrics in images:
        check = choice.failing(metrics)
        if check:
            value, threshold = f"{check.value(metrics):.2f}", f"{check.threshold:g}"
            rejected.append(inspection.rejection(row, check.reason, value.removesuffix(".00"), threshold))
        else:
            good.append((row, metrics))
    return rejected + duplicates.reject_duplicates(good, similarities, products, choice)


def _copy(rows: Sequence[ImageRow], layout: Layout) -> None:
    """Copy these images to clean_dataset/images/ and remove all others from it."""
    layout.clean_images.mkdir(parents=True, exist_ok=True)
    wanted = {Path(row.file).name for row in rows}
    for path in layout.clean_images.iterdir():
        if path.name not in wanted and path.suffix in (".jpg", ".part"):
            path.unlink()
    for row in rows:
        copy_if_changed(layout.root / row.file, layout.clean_images / Path(row.file).name)
    # The images must be on disk before the table names them.
    os.sync()


def _clean_row(row: ImageRow, metrics: ImageMetrics, layout: Layout) -> CleanRow:
    return CleanRow(
        product_url=row.product_url,
        image_id=row.image_id,
        product_id=row.product_id,
        file=layout.relative(layout.clean_images / Path(row.file).name),
        width=metrics.width,
        height=metrics.height,
        sharpness=round(metrics.sharpness.content, 2),
        plain_sharpness=round(metrics.sharpness.plain, 2),
        sha256=metrics.sha256,
        dhash_16x16=metrics.dhash,
        phash_16x16=metrics.phash,
    )


def _results(
    rows: Sequence[ImageRow], kept: Sequence[tuple[ImageRow, ImageMetrics]], rejected: Sequence[RejectedRow],
    inspections: Sequence[Inspection], products: Products, min_sharpness: float,
) -> dict[str, Any]:  # fmt: skip
    """Return the figures of report and cleaning report in addition to the counts."""
    sharpness = [one.metrics.sharpness for one in inspections if one.metrics]
    thresholds = sorted({20.0, 40.0, 60.0, 80.0, 100.0, 150.0, min_sharpness})
    seen, with_image = {row.product_id for row in rows}, {row.product_id for row, _ in kept}
    lost = sorted(seen - with_image, key=natural_key)
    return {
        "seen": len(rows),
        "products_seen": len(seen),
        "products_kept": len(with_image),
        "products_lost": lost,
        "products_lost_by_category": dict(sorted(Counter(products.category(one) for one in lost).items())),
        "sharp_at_threshold": {
            f"{threshold:g}": sum(one.content >= threshold for one in sharpness) for threshold in thresholds
        },
        "plain_sharp_at_threshold": {
            f"{threshold:g}": sum(one.plain >= threshold for one in sharpness) for threshold in thresholds
        },
        # Sharp by the content, blurred by the metric of the reference experiment: kept, and worth checking.
        "kept_against_plain_rule": sorted(
            (row.image_id for row, metrics in kept if metrics.sharpness.plain < min_sharpness), key=natural_key
        ),
        "rejected_by_category": _by_category(rejected, products),
        "seen_by_category": dict(sorted(Counter(products.category(row.product_id) for row in rows).items())),
        "conflicts": _conflicts(rejected),
        "n_equal_hashes": _n_equal_hashes([metrics for _, metrics in kept]),
        "reference": reference_experiment.CLEANING,
    }


def _failing(choice: Choice, measured: Sequence[ImageMetrics]) -> dict[str, dict[str, Any]]:
    """Return for each check its threshold, whether it rejects, and how many images fail it, alone or with others."""
    return {
        check.reason: {
            "threshold": check.threshold,
            "rejects": check.reason in choice.on,
            "failing": sum(check.fails(metrics) for metrics in measured),
        }
        for check in choice.checks
    }


def _compare(images: duplicates.Images, similarities: Similarities, products: Products, other: Rules) -> dict[str, Any]:
    """Return the images on which the default rules and other rules differ, each with their default thresholds."""
    ours, theirs = (
        {row.image_id: row.reason for row in decide(images, similarities, products, checks.choose(rules, {}))}
        for rules in ("content", other)
    )
    return {
        "kept": len(images) - len(theirs),
        "rejected": dict(sorted(Counter(theirs.values()).items())),
        "only_they_reject": sorted(theirs.keys() - ours.keys(), key=natural_key),
        "only_they_keep": sorted(ours.keys() - theirs.keys(), key=natural_key),
    }


def _by_category(rejected: Sequence[RejectedRow], products: Products) -> dict[str, dict[str, int]]:
    """Return reason -> category -> number of rejected images."""
    counts = Counter((row.reason, products.category(row.product_id)) for row in rejected)
    return {
        reason: {category: n for (one, category), n in sorted(counts.items()) if one == reason}
        for reason in sorted({row.reason for row in rejected})
    }


def _conflicts(rejected: Sequence[RejectedRow]) -> list[list[str]]:
    """Return [image id, image id, their categories], each pair once."""
    pairs = {
        frozenset((row.image_id, row.duplicate_of)): [row.image_id, row.duplicate_of, row.value]
        for row in reversed(rejected)
        if row.reason == "category_conflict"
    }
    return sorted(pairs.values(), key=lambda pair: natural_key(pair[0]))


def _n_equal_hashes(kept: Sequence[ImageMetrics]) -> int:
    """Return how many of the kept images, which are not duplicates, equal 256-bit difference hashes would reject."""
    return len(kept) - len({metrics.dhash for metrics in kept})


def main() -> None:
    """Run the stage from the command line."""
    stage.main("clean", Config, run)


if __name__ == "__main__":
    main()

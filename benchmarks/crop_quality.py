"""Quality of the product crop: overlap with the rendered product, compared with the content box of clean.py.

The images are those of the sample shop (JPEG, PNG and WebP) that show a whole pack. Each mask is compared with the
rendered mask, each box with its box; so is `quality.content_box`. An image that is not cropped counts with its whole
frame. Intervals cover 95 % and resample products. Real photos have no ground truth: `--photos` counts the outcomes and
writes a contact sheet.

Out: benchmarks/results/crop_quality.json and a table.
Command: python benchmarks/crop_quality.py [--n-images 200] [--photos FOLDER]
Time: 3 minutes for all 599 images on one core.
"""

import json
import logging
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image
from tqdm import tqdm

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

from skincare import images
from skincare.cleaning import quality
from skincare.cleaning.foreground import Foreground, NoProductError, segment_product
from skincare.cleaning.quality import Box
from skincare.evaluation.intervals import draw_products, percentile_interval
from skincare.runlog import environment
from skincare.sample import drawing, rendering
from skincare.sample.products import Product, ShopImage, sample_products

logger = logging.getLogger("crop_quality")

_WHOLE = ("photo", "png", "webp", "unavailable_twice")
_THUMBNAIL_PX = 120
_COLUMNS = 16


@dataclass(frozen=True)
class Config:
    """What to measure."""

    n_images: int | None = None
    """Number of images in a random sample; all if left out."""
    photos: Path | None = None
    """Folder of real photos; their contact sheet is written to plots/focus_photos.png."""


@dataclass(frozen=True)
class Measured:
    """One image; cut: by how much the box cuts into the product, as a share of the product's longer side."""

    product_id: str
    groups: tuple[str, ...]
    outcome: str
    mask: float
    box: float
    cut: float
    baseline: float
    baseline_cut: float


def main() -> None:
    """Measure, write, log."""
    config = tyro.cli(Config, description=__doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    products = sample_products(0)
    shown = [(one, image) for one in products for image in one.images if image.kind in _WHOLE]
    if config.n_images:
        shown = random.Random(0).sample(shown, min(config.n_images, len(shown)))
    measured = [measure(*one) for one in tqdm(shown, "crop_quality", unit="image", disable=None)]
    groups = ["all", *(f"on {name}" for name in drawing.BACKGROUNDS), "white packs", "white packs on white"]
    table = {group: summarise([one for one in measured if group in one.groups]) for group in groups}
    result: dict[str, Any] = {"drawn": table, **environment()}
    if config.photos:
        result["photos"] = inspect_photos(config.photos)
    path = REPOSITORY / "benchmarks" / "results" / "crop_quality.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for group, row in table.items():
        logger.info("%-22s %s", group, json.dumps(row))
    logger.info("%s\nwritten to %s", json.dumps(result.get("photos", {})), path)


def measure(product: Product, shop_image: ShopImage) -> Measured:
    """Compare the crop of an image with the rendered product."""
    image = images.decode(rendering.image_bytes(product, shop_image, {}))
    drawn = drawing.draw(product.packaging, shop_image.view, shop_image.side_px, *product.printed)
    truth = np.asarray(drawn.mask) > 0
    found, outcome = _found(image)
    mask = found.alpha > 127 if found else np.ones_like(truth)
    pixels = np.asarray(image)
    box, baseline = found.box if found else (0, 0, *image.size), quality.content_box(pixels, pixels)
    is_white = product.packaging.body_colour == "white"
    background = shop_image.view.background
    groups = ["all", f"on {background}", *(["white packs"] if is_white else [])]
    groups += ["white packs on white"] if is_white and background == "white" else []
    return Measured(
        product.product_id, tuple(groups), outcome, float((mask & truth).sum() / (mask | truth).sum()),
        _overlap(box, drawn.box), _cut(box, drawn.box), _overlap(baseline, drawn.box), _cut(baseline, drawn.box),
    )  # fmt: skip


def _found(image: Image.Image) -> tuple[Foreground | None, str]:
    try:
        return segment_product(image), "focused"
    except NoProductError as error:
        return None, error.reason


def _overlap(one: Box, other: Box) -> float:
    """Return intersection over union."""
    width = max(0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0, min(one[3], other[3]) - max(one[1], other[1]))
    shared = width * height
    return shared / (sum((right - left) * (bottom - top) for left, top, right, bottom in (one, other)) - shared)


def _cut(box: Box, product: Box) -> float:
    into = max(box[0] - product[0], box[1] - product[1], product[2] - box[2], product[3] - box[3], 0)
    return into / max(product[2] - product[0], product[3] - product[1])


def summarise(rows: Sequence[Measured]) -> dict[str, Any]:
    """Return outcomes, means with intervals, and low quantiles."""
    cuts = {"box_cuts_over_8_percent": [one.cut for one in rows],
            "content_box_cuts_over_8_percent": [one.baseline_cut for one in rows]}  # fmt: skip
    return {
        "n": len(rows),
        "n_products": len({one.product_id for one in rows}),
        "outcomes": dict(Counter(one.outcome for one in rows)),
        "mask_overlap": _spread(rows, [one.mask for one in rows]),
        "box_overlap": _spread(rows, [one.box for one in rows]),
        "content_box_overlap": _spread(rows, [one.baseline for one in rows]),
        **{name: sum(cut > 0.08 for cut in values) for name, values in cuts.items()},
    }


def _spread(rows: Sequence[Measured], values: Sequence[float]) -> dict[str, Any]:
    """Return mean, its interval over products, 5th percentile and minimum."""
    if not rows:
        return {}
    ids = sorted({one.product_id for one in rows})
    sums, counts = np.zeros(len(ids)), np.zeros(len(ids))
    for one, value in zip(rows, values, strict=True):
        sums[ids.index(one.product_id)] += value
        counts[ids.index(one.product_id)] += 1
    draws = draw_products(len(ids), seed=0, n_resamples=2000)
    interval = percentile_interval((draws @ sums) / (draws @ counts), len(ids)) if len(ids) > 1 else (0.0, 1.0)
    return {
        "mean": round(float(np.mean(values)), 3),
        "interval": [round(end, 3) for end in interval],
        "p5": round(float(np.quantile(values, 0.05)), 3),
        "min": round(min(values), 3),
    }


def inspect_photos(folder: Path) -> dict[str, int]:
    """Return the outcomes of real photos; write a sheet with each product on magenta, uncropped photos darkened."""
    outcomes: Counter[str] = Counter()
    tiles: list[Image.Image] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        image = images.decode(path.read_bytes())
        found, outcome = _found(image)
        outcomes[outcome] += 1
        ground = Image.new("RGB", image.size, (255, 0, 255) if found else (0, 0, 0))
        alpha = Image.fromarray(found.alpha) if found else Image.new("L", image.size, 90)
        tile = Image.composite(image, ground, alpha)
        tile.thumbnail((_THUMBNAIL_PX - 4, _THUMBNAIL_PX - 4))
        tiles.append(tile)
    sheet = Image.new("RGB", (_COLUMNS * _THUMBNAIL_PX, -(-len(tiles) // _COLUMNS) * _THUMBNAIL_PX), (128, 128, 128))
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % _COLUMNS * _THUMBNAIL_PX, i // _COLUMNS * _THUMBNAIL_PX))
    path = REPOSITORY / "plots" / "focus_photos.png"
    path.parent.mkdir(exist_ok=True)
    sheet.save(path)
    return dict(outcomes)


if __name__ == "__main__":
    main()

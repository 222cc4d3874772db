"""Near-duplicate detection on real photos: recall on edited versions, false positives on a changed line of text.

Each photo is compared with near-duplicates of it (smaller, compressed more, padded to another canvas, cut by 3 % at the
edge), with a version in which one printed line, as OCR finds it, is mirrored, and with all other photos.

Out: benchmarks/results/duplicate_photos.json and the counts.
Command: python benchmarks/duplicate_photos.py --photos FOLDER
Time: 6 minutes for 192 photos on one CPU core.
"""

import json
import logging
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np
import tyro
from PIL import Image, ImageOps
from tqdm import tqdm

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))
sys.path.insert(0, str(REPOSITORY))

from benchmarks.duplicate_quality import cut, distance, inspect, jpeg, padded

from skincare import images
from skincare.files import write_json
from skincare.runlog import environment
from skincare.text_reading.rapid_ocr import RapidOcrEngine

logger = logging.getLogger("duplicate_photos")

_MAX_PHOTO_PX: Final = 1600


@dataclass(frozen=True)
class Config:
    """What to measure."""

    photos: Path
    """Folder of real photos."""


def main() -> None:
    """Measure, write, log."""
    config = tyro.cli(Config, description=__doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    merged = judge_photos(config.photos)
    write_json(REPOSITORY / "benchmarks" / "results" / "duplicate_photos.json", {"merged": merged} | environment())
    logger.info("%s", json.dumps(merged))


def judge_photos(folder: Path) -> dict[str, str]:
    """Return for each kind of pair how many are called near-duplicates."""
    engine, rng = RapidOcrEngine(), random.Random(0)
    merged: dict[str, list[bool]] = defaultdict(list)
    originals = []
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in tqdm(paths, "photos", unit="image", disable=None):
        image = images.decode(path.read_bytes())
        image.thumbnail((_MAX_PHOTO_PX, _MAX_PHOTO_PX))
        changed = {
            "halved": image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS),
            "padded": padded(image, rng),
            "edge cut 3 %": cut(image, 0.03),
        }
        contents = {kind: jpeg(one) for kind, one in changed.items()} | {"recompressed": jpeg(image, quality=40)}
        mirrored = _with_mirrored_line(image, engine.detect(np.asarray(image)[:, :, ::-1]), rng)
        if mirrored:
            contents["mirrored line"] = jpeg(mirrored)
        original = inspect(jpeg(image))
        originals.append(original)
        for kind, content in contents.items():
            merged[kind].append(distance(original, inspect(content)) <= 1)
    merged["two photos"] = [distance(one, other) <= 1 for one, other in combinations(originals, 2)]
    return {kind: f"{sum(found)} of {len(found)}" for kind, found in merged.items()}


def _with_mirrored_line(image: Image.Image, lines: Sequence[Any], rng: random.Random) -> Image.Image | None:
    """Return the image with one of its lines of text mirrored; None if no line is large enough."""
    boxes = [(*np.floor(line.min(axis=0)).astype(int), *np.ceil(line.max(axis=0)).astype(int)) for line in lines]
    boxes = [box for box in boxes if box[2] - box[0] >= 12 and box[3] - box[1] >= 6]
    if not boxes:
        return None
    box = tuple(int(max(0, side)) for side in rng.choice(boxes))
    changed = image.copy()
    changed.paste(ImageOps.mirror(image.crop(box)), box[:2])  # type: ignore[arg-type]
    return changed


if __name__ == "__main__":
    main()

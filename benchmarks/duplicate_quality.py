"""Recall and precision of near-duplicate detection by threshold: this pipeline and the usual hashes.

Each rendered pack has an original image, near-duplicates of it (smaller, compressed more, padded to another canvas, cut
at the edge) and similar images of other products: the pack in another shade, with another cap, mark or printed word,
and a second photo. All are saved as JPEG and inspected as in clean.py. Similar images whose pixels equal those of the
original, since the changed part is not visible, are left out. Each original is compared with its near-duplicates, its
similar images and the originals of all other packs. A method calls two images near-duplicates if their distance is at
most the threshold: for hashes the number of different bits, for this pipeline the difference of the worst block, as a
share of the threshold of clean.py.

Precision depends on the number of packs, as in a shop; recall and the share of similar images merged do not. Intervals
cover 95 % and resample packs. `--pairs` adds pairs of real photos that were judged by eye (columns verdict, file_a,
file_b). Near-duplicates of real photos: duplicate_photos.py.

Out: benchmarks/results/duplicate_quality.json and a table.
Command: python benchmarks/duplicate_quality.py [--n-packs 200] [--pairs FILE.csv]
Time: 1 minute on two CPU cores.
"""

import csv
import io
import json
import logging
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np
import tyro
from PIL import Image
from tqdm import tqdm

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

from skincare import images
from skincare.cleaning import alignment, inspection, near_duplicates
from skincare.cleaning.inspection import ImageMetrics
from skincare.cleaning.near_duplicates import Fingerprint
from skincare.evaluation.intervals import draw_products, share_interval
from skincare.files import write_json
from skincare.runlog import environment
from skincare.sample import drawing

logger = logging.getLogger("duplicate_quality")

_SIDE_PX: Final = 800
_ORIGINAL: Final = "original"
NEAR_DUPLICATES: Final = ("halved", "recompressed", "padded", "edge cut 3 %", "edge cut 8 %")
SIMILAR: Final = ("other shade", "other cap", "other mark", "other word", "other photo")
ANOTHER_PACK: Final = "another pack"


@dataclass(frozen=True)
class Config:
    """What to measure."""

    n_packs: int = 200
    """Different packs to render."""
    pairs: Path | None = None
    """Table of judged pairs of real photos, in the folder of their files."""
    out: Path = REPOSITORY / "benchmarks" / "results" / "duplicate_quality.json"
    """Where to write the JSON."""


@dataclass(frozen=True)
class MeasuredImage:
    """An image with all that the methods compare."""

    content: bytes
    metrics: ImageMetrics
    fingerprint: Fingerprint | None


@dataclass(frozen=True)
class Method:
    """A distance of two images and its thresholds."""

    distance: Callable[[MeasuredImage, MeasuredImage], float]
    thresholds: tuple[float, ...]


@dataclass(frozen=True)
class Pair:
    """Two images, the kind of the second, and the pack of the first."""

    one: MeasuredImage
    other: MeasuredImage
    kind: str
    pack: int


def main() -> None:
    """Render, compare, write."""
    config = tyro.cli(Config, description=__doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    packs = different_packs(config.n_packs)
    with ProcessPoolExecutor() as pool:
        drawn = pool.map(images_of_pack, packs, range(len(packs)))
        images_of_packs = list(tqdm(drawn, "duplicate_quality", total=len(packs), unit="pack", disable=None))
    pairs = list(labelled_pairs(images_of_packs))
    rows = [row for name, method in METHODS.items() for row in rate(name, method, pairs, len(packs))]
    result: dict[str, Any] = {"n_packs": len(packs), "rows": rows}
    if config.pairs:
        result["judged_pairs"] = judge(config.pairs)
    write_json(config.out, result | environment())
    for row in rows:
        logger.info("%s", _line(row))
    for method, thresholds in result.get("judged_pairs", {}).items():
        logger.info("%-22s %s", method, json.dumps(thresholds))


def different_packs(n_packs: int) -> list[drawing.Packaging]:
    """Return packs with distinct descriptions."""
    rng = random.Random(0)
    found: dict[drawing.Packaging, None] = {}
    while len(found) < n_packs:
        found.setdefault(drawing.random_packaging(rng))
    return list(found)


def images_of_pack(packaging: drawing.Packaging, number: int) -> dict[str, MeasuredImage]:
    """Return all images of one pack, by kind."""
    rng = random.Random(number)
    word = f"BRAND {number}"
    image = _draw(packaging, word)
    other = {
        "body_colour": _another(packaging.body_colour, drawing.BODY_COLOURS, rng),
        "cap_colour": _another(packaging.cap_colour, drawing.CAP_COLOURS, rng),
        "mark": _another(packaging.mark, drawing.MARKS, rng),
    }
    contents = {
        _ORIGINAL: jpeg(image),
        "halved": jpeg(image.resize((_SIDE_PX // 2, _SIDE_PX // 2), Image.Resampling.LANCZOS)),
        "recompressed": jpeg(image, quality=40),
        "padded": jpeg(padded(image, rng)),
        "edge cut 3 %": jpeg(cut(image, 0.03)),
        "edge cut 8 %": jpeg(cut(image, 0.08)),
        "other shade": jpeg(_draw(replace(packaging, body_colour=other["body_colour"]), word)),
        "other cap": jpeg(_draw(replace(packaging, cap_colour=other["cap_colour"]), word)),
        "other mark": jpeg(_draw(replace(packaging, mark=other["mark"]), word)),
        "other word": jpeg(_draw(packaging, f"BRAND {number + 500}")),
        "other photo": jpeg(drawing.draw(packaging, drawing.random_view(rng), _SIDE_PX, word).image),
    }
    return {kind: inspect(content) for kind, content in contents.items()}


def inspect(content: bytes) -> MeasuredImage:
    """Inspect an image as clean.py does."""
    metrics, thumbnails = inspection.measure(content)
    return MeasuredImage(content, metrics, None if thumbnails is None else metrics.fingerprint(thumbnails))


def labelled_pairs(packs: Sequence[Mapping[str, MeasuredImage]]) -> Iterator[Pair]:
    """Yield each original with its near-duplicates and similar images, and the originals of different packs."""
    for number, images_by_kind in enumerate(packs):
        for kind in (*NEAR_DUPLICATES, *SIMILAR):
            if images_by_kind[kind].content == images_by_kind[_ORIGINAL].content:
                continue
            yield Pair(images_by_kind[_ORIGINAL], images_by_kind[kind], kind, number)
    for one, other in combinations(range(len(packs)), 2):
        yield Pair(packs[one][_ORIGINAL], packs[other][_ORIGINAL], ANOTHER_PACK, one)


def rate(name: str, method: Method, pairs: Sequence[Pair], n_packs: int) -> Iterator[dict[str, Any]]:
    """Yield precision, recall and false positives of a method at each threshold."""
    distances = np.array([method.distance(pair.one, pair.other) for pair in pairs])
    kinds = np.array([pair.kind for pair in pairs])
    packs = np.array([pair.pack for pair in pairs])
    is_near_duplicate = np.isin(kinds, NEAR_DUPLICATES)
    draws = draw_products(n_packs, seed=0, n_resamples=2000)
    among = np.bincount(packs[is_near_duplicate], minlength=n_packs).astype(np.float64)
    for threshold in method.thresholds:
        is_merged = distances <= threshold
        hits = np.bincount(packs[is_merged & is_near_duplicate], minlength=n_packs).astype(np.float64)
        interval = share_interval(hits, among, draws)
        assert interval is not None
        yield {
            "method": name,
            "threshold": threshold,
            "precision": round(float(is_near_duplicate[is_merged].mean()), 4) if is_merged.any() else None,
            "recall": round(float(is_merged[is_near_duplicate].mean()), 4),
            "recall_interval": [round(end, 4) for end in interval],
            "recall_by_kind": {kind: round(float(is_merged[kinds == kind].mean()), 4) for kind in NEAR_DUPLICATES},
            "wrong_by_kind": {
                kind: round(float(is_merged[kinds == kind].mean()), 4) for kind in (*SIMILAR, ANOTHER_PACK)
            },
            "n_wrong": int((is_merged & ~is_near_duplicate).sum()),
        }  # fmt: skip


def judge(table: Path) -> dict[str, dict[str, dict[str, str]]]:
    """Return for each method and threshold how many judged pairs of each verdict it calls near-duplicates."""
    by_verdict: dict[str, list[tuple[MeasuredImage, MeasuredImage]]] = defaultdict(list)
    for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines()):
        one, other = (inspect((table.parent / row[side]).read_bytes()) for side in ("file_a", "file_b"))
        by_verdict[row["verdict"].partition(":")[0]].append((one, other))
    return {
        name: {
            f"{threshold:g}": {
                verdict: f"{sum(method.distance(*pair) <= threshold for pair in pairs)} of {len(pairs)}"
                for verdict, pairs in by_verdict.items()
            }
            for threshold in method.thresholds
        }
        for name, method in METHODS.items()
    }


def distance(one: MeasuredImage, other: MeasuredImage) -> float:
    """Return the difference that clean.py compares with its threshold, infinite for images that are not candidates."""
    if one.fingerprint is None or other.fingerprint is None:
        return float("inf")
    found = near_duplicates.compare(0, one.fingerprint, 1, other.fingerprint)
    if found is None:
        return float("inf")
    views = [_view(image, is_content) for image, is_content in zip((one, other), found.views, strict=True)]
    return alignment.view_difference(*views, found.alignment)


def _view(image: MeasuredImage, is_content: int) -> images.Pixels:
    pixels = images.decode_with_notes(image.content).pixels
    left, top, right, bottom = image.metrics.box if is_content else (0, 0, *pixels.shape[1::-1])
    return pixels[top:bottom, left:right]


def _bits_apart(field: str, one: MeasuredImage, other: MeasuredImage) -> float:
    return float((int(getattr(one.metrics, field), 16) ^ int(getattr(other.metrics, field), 16)).bit_count())


METHODS: Final[dict[str, Method]] = {
    "ours": Method(distance, (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)),
    "dhash, 256 bits": Method(partial(_bits_apart, "dhash"), (0, 5, 10, 20, 40)),
    "phash, 256 bits": Method(partial(_bits_apart, "phash"), (0, 5, 10, 20, 40)),
    "dhash, 64 bits": Method(partial(_bits_apart, "dhash_8x8"), (0, 2, 5, 10)),
    "the reference's": Method(partial(_bits_apart, "reference_hash"), (0,)),
}


def _draw(packaging: drawing.Packaging, word: str) -> Image.Image:
    return drawing.draw(packaging, drawing.View(), _SIDE_PX, word).image


def _another(word: str, words: Mapping[str, Any] | Sequence[str], rng: random.Random) -> str:
    return rng.choice([one for one in words if one != word])


def padded(image: Image.Image, rng: random.Random) -> Image.Image:
    """Put an image on a larger white canvas."""
    canvas = Image.new(
        "RGB", (round(image.width * rng.uniform(1.1, 1.6)), round(image.height * rng.uniform(1, 1.5))), "white"
    )
    canvas.paste(image, (rng.randint(0, canvas.width - image.width), rng.randint(0, canvas.height - image.height)))
    return canvas


def cut(image: Image.Image, share: float) -> Image.Image:
    """Cut so much of the width and height away, twice as much below as above, nothing on the right."""
    width, height = image.size
    return image.crop((round(width * share), round(height * share / 3), width, round(height * (1 - share * 2 / 3))))


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    """Return an image as JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _line(row: Mapping[str, Any]) -> str:
    shares = {**row["recall_by_kind"], **row["wrong_by_kind"]}
    precision = "     -" if row["precision"] is None else f"{row['precision']:6.1%}"
    return (
        f"{row['method']:16} <= {row['threshold']:5g}: precision {precision}, recall {row['recall']:6.1%} "
        f"({row['recall_interval'][0]:.1%} to {row['recall_interval'][1]:.1%}), wrong {row['n_wrong']:5}; "
        + ", ".join(f"{kind} {share:.1%}" for kind, share in shares.items())
    )


if __name__ == "__main__":
    main()

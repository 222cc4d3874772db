"""Speed of clean.py compared with decoding alone, cleanvision and imagededup, on the same images and cores.

The images are rendered packs of 1,000 x 1,000 pixels with grain, one in ten a re-encoded near-duplicate, saved as JPEG.
"ours" is the whole stage: all checks and hashes, near-duplicates, files, tables and report. cleanvision runs its
default checks; imagededup encodes with its DHash and finds duplicates. Both use as many processes as there are cores,
in an environment of their own:

    python -m venv peers && peers/bin/pip install cleanvision imagededup
    python benchmarks/cleaning_speed.py

Each is timed `--n-rounds` times in turn, and the best time counts, since other load only adds time. "ours, cold" starts
without cached metrics and without output. "Decoding" is PIL's, without any use of the pixels. Also timed: the search
for near-duplicates among the cell means of 100,000 synthetic images.

Out: benchmarks/results/cleaning_speed.json and a table.
Time: 6 minutes on two CPU cores.
"""

import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import simplejpeg
import tyro
from PIL import Image

REPOSITORY: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

import clean
from skincare.cleaning import near_duplicates
from skincare.files import write_json
from skincare.labels import skincare_labels
from skincare.paths import Layout
from skincare.runlog import environment
from skincare.sample import drawing
from skincare.tables import CATALOGUE, IMAGES, CatalogueRow, ImageRow

logger = logging.getLogger("cleaning_speed")

# Each prints its seconds as the last line, without the start of Python and the import of the tool.
_PEERS: Final = {
    "cleanvision": """
import sys, time
from importlib.metadata import version
from cleanvision import Imagelab
start = time.perf_counter()
lab = Imagelab(data_path=sys.argv[1])
lab.find_issues(n_jobs=int(sys.argv[2]), verbose=False)
print(version("cleanvision"), time.perf_counter() - start)
""",
    "imagededup": """
import sys, time
from importlib.metadata import version
from imagededup.methods import DHash
if __name__ == "__main__":
    start = time.perf_counter()
    method = DHash(verbose=False)
    encodings = method.encode_images(image_dir=sys.argv[1], num_enc_workers=int(sys.argv[2]))
    method.find_duplicates(encoding_map=encodings, num_dist_workers=int(sys.argv[2]))
    print(version("imagededup"), time.perf_counter() - start)
""",
}


@dataclass(frozen=True)
class Config:
    """What to measure."""

    n_images: int = 2000
    """Images of 1,000 x 1,000 pixels."""
    n_fingerprints: int = 100_000
    """Synthetic cell means to search for near-duplicates."""
    n_rounds: int = 2
    """Number of measurements of each method."""
    peers: Path = Path("peers/bin/python")
    """Python of the environment with cleanvision and imagededup."""


def main() -> None:
    """Measure every method and log a table."""
    config = tyro.cli(Config, description=__doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        n_bytes = _make_images(layout, config.n_images)
        rates, skipped = _rates(config, layout)
    result = {
        "n_images": config.n_images,
        "mean_bytes": round(n_bytes / config.n_images),
        "images_per_s": {name: round(rate, 1) for name, rate in rates.items()},
        "skipped": skipped,
        "near_duplicate_search": {"n": config.n_fingerprints, **_search_near_duplicates(config)},
        **environment(),
    }
    write_json(REPOSITORY / "benchmarks" / "results" / "cleaning_speed.json", result)
    ours = rates["ours, cold"]
    for name, rate in rates.items():
        logger.info("%-24s %8.1f images/s   ours is %5.2f x", name, rate, ours / rate)
    logger.info(
        "%s", json.dumps({"skipped": skipped, "near_duplicate_search": result["near_duplicate_search"]}, indent=1)
    )


def _rates(config: Config, layout: Layout) -> tuple[dict[str, float], dict[str, str]]:
    """Return images per second of each method, and why others were skipped."""
    paths = sorted(layout.product_images.iterdir())
    seconds: dict[str, float] = {}
    skipped: dict[str, str] = {}

    def note(name: str, found: float) -> None:
        seconds[name] = min(found, seconds.get(name, found))

    with ProcessPoolExecutor() as pool:
        list(pool.map(_decode_grey, paths[:50]))  # starts the processes and warms the page cache
        for _ in range(config.n_rounds):
            note("decoding to grey", _timed(partial(_map, pool, _decode_grey, paths)))
            note("decoding to colour", _timed(partial(_map, pool, _decode_colour, paths)))
            note("decoding, simplejpeg", _timed(partial(_map, pool, _decode_as_ours, paths)))
            _set_aside(layout)
            note("ours, cold", _timed(partial(clean.run, clean.Config(root=layout.root), layout)))
            note("ours, nothing changed", _timed(partial(clean.run, clean.Config(root=layout.root), layout)))
            for name, code in _PEERS.items():
                found = _peer(config.peers, code, layout.product_images)
                if isinstance(found, str):
                    skipped[name] = found
                else:
                    note(f"{name} {found[0]}", found[1])
    return {name: len(paths) / found for name, found in seconds.items()}, skipped


def _set_aside(layout: Layout) -> None:
    """Move cached metrics and output of an earlier round away.

    They are not deleted, since ext4 searches recently deleted inodes before it allocates a new one, which takes time.
    """
    aside = Path(tempfile.mkdtemp(dir=layout.root))
    for made in (layout.clean_images.parent, layout.metrics_cache.parent):
        if made.exists():
            made.rename(aside / made.name)
    os.sync()


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _map(pool: ProcessPoolExecutor, work: Callable[[Path], None], paths: Sequence[Path]) -> None:
    list(pool.map(work, paths, chunksize=16))


def _decode_grey(path: Path) -> None:
    with Image.open(path) as image:
        image.draft("L", None)
        image.load()


def _decode_colour(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def _decode_as_ours(path: Path) -> None:
    simplejpeg.decode_jpeg(path.read_bytes(), "RGB")


def _peer(python: Path, code: str, folder: Path) -> tuple[str, float] | str:
    """Return version and seconds of a peer, or the reason why it failed."""
    if not python.is_file():
        return f"{python} is not there; see --help"
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(code)
        script.flush()
        command = [str(python), script.name, str(folder), str(os.cpu_count())]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["failed"])[-1]
    version, seconds = done.stdout.strip().splitlines()[-1].split()
    return version, float(seconds)


def _make_images(layout: Layout, n_images: int) -> int:
    """Write catalogue, images and their table; return the total size in bytes."""
    layout.product_images.mkdir(parents=True)
    with ProcessPoolExecutor() as pool:
        sizes = list(pool.map(partial(_make_image, layout), range(n_images), chunksize=8))
    ids = [(f"{10_000_000 + i}", f"https://shop.example/pack/{10_000_000 + i}.html") for i in range(n_images)]
    IMAGES.write(layout.images_table, [
        ImageRow(url, f"{one}_1", one, f"product_images/pack_{one}_1.jpg", "", 1000, 1000, sizes[i], "")
        for i, (one, url) in enumerate(ids)
    ])  # fmt: skip
    categories = skincare_labels().names
    CATALOGUE.write(layout.catalogue, [
        CatalogueRow(f"Pack {one}", url, categories[i // 10 % len(categories)]) for i, (one, url) in enumerate(ids)
    ])  # fmt: skip
    return sum(sizes)


def _make_image(layout: Layout, i: int) -> int:
    """Render a pack; each tenth image is the first of its ten, compressed more."""
    is_copy = i % 10 == 9
    seed = i - 9 if is_copy else i
    packaging = drawing.random_packaging(random.Random(seed))
    pixels = np.asarray(drawing.draw(packaging, drawing.View(), 1000, f"BRAND{seed}").image)
    # Photos have grain on the pack; without it a rendered image decodes twice as fast as a photo.
    grain = cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 20, pixels.shape).astype(np.float32), (0, 0), 0.8)
    is_pack = (pixels < 250).any(axis=2, keepdims=True)
    image = Image.fromarray(np.clip(pixels + grain * is_pack, 0, 255).astype(np.uint8))
    path = layout.product_images / f"pack_{10_000_000 + i}_1.jpg"
    image.save(path, "JPEG", quality=80 if is_copy else 90)
    return path.stat().st_size


def _search_near_duplicates(config: Config) -> dict[str, Any]:
    """Search near-duplicates among synthetic packs on white."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (config.n_fingerprints, 3, 3), dtype=np.uint8)
    content = np.stack([cv2.resize(one, (8, 8), interpolation=cv2.INTER_LINEAR) for one in coarse])
    content = content.reshape(config.n_fingerprints, 64)
    frame = np.full_like(content, 255).reshape(-1, 8, 8)
    frame[:, 1:7, 2:6] = content.reshape(-1, 8, 8)[:, 1:7, 2:6]
    cells = np.stack([frame.reshape(config.n_fingerprints, 64), content], axis=1)
    cells[9::10] = cells[:-9:10][: len(cells[9::10])]
    thumbnails = np.zeros((2, 64, 64, 3), np.uint8)
    same = near_duplicates.Fingerprint(thumbnails, (1.0, 1.0))
    start = time.perf_counter()
    n_pairs = len(near_duplicates.search(list(cells), lambda _: same))
    return {"seconds": round(time.perf_counter() - start, 2), "pairs": n_pairs}


if __name__ == "__main__":
    main()

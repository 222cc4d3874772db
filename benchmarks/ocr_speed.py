"""What reading a photo costs, and what it finds: our engine beside rapidocr as it comes, photo by photo in one run.

Both run in processes of their own with one thread, and take turns, so that whatever else the machine does slows both.

cpu_s       seconds of processor time a photo, decoding included
peak_mib    the most memory that the process held, its libraries included
with_text   share of the photos on which it found any line
words       words of the phrase table (four letters or more) that it found on a photo, on average
accuracy    likeliest category right, by the phrase table alone (a fresh clone's reader)

Out: benchmarks/results/ocr_speed.json and a table.
Command: python benchmarks/ocr_speed.py --photos FOLDER|FILE.csv [--every 3]
Time: three seconds a photo.
"""

import logging
import multiprocessing
import re
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import tyro
from tqdm import tqdm

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY)]

from benchmarks.real_photos import Photo, find_table, read_photos

from skincare import images
from skincare.files import write_json
from skincare.images import Pixels
from skincare.labels import skincare_labels
from skincare.runlog import environment
from skincare.text_reading.ocr import make_engine
from skincare.text_reading.phrases import fold, phrases_of
from skincare.text_reading.reader import Reader

logger = logging.getLogger("ocr_speed")


@dataclass(frozen=True)
class Config:
    """What to measure."""

    photos: Path
    """A CSV of photos, or the folder that it lies in."""
    every: int = 1
    """Take every so many-th photo."""
    out: Path = REPOSITORY / "benchmarks" / "results" / "ocr_speed.json"
    """Where to write the JSON."""


def ours() -> Callable[[Pixels], list[str]]:
    """Return our engine."""
    engine = make_engine()
    return lambda pixels: [line.text for line in engine.read(pixels)]


def rapidocr_as_it_comes() -> Callable[[Pixels], list[str]]:
    """Return rapidocr's own driver with its own settings, but one thread and no classifier of upside-down lines."""
    from rapidocr import RapidOCR

    engine = RapidOCR(params={"Global.log_level": "critical", "EngineConfig.onnxruntime.intra_op_num_threads": 1})

    def read(pixels: Pixels) -> list[str]:
        found: Any = engine(np.ascontiguousarray(pixels[:, :, ::-1]), use_cls=False)
        return list(found.txts or ())

    return read


ENGINES: Final = {"rapidocr": rapidocr_as_it_comes, "ours": ours}


def work(engine: str, pipe: Connection) -> None:
    """Read the photos whose paths come through the pipe; give texts, CPU seconds and peak memory back."""
    cv2.setNumThreads(1)
    read = ENGINES[engine]()
    read(np.full((64, 64, 3), 255, np.uint8))
    while (path := pipe.recv()) is not None:
        started = time.process_time()
        texts = read(images.decode_with_notes(path.read_bytes()).pixels)
        seconds = time.process_time() - started
        pipe.send((texts, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def main() -> None:
    """Let both read all photos, write the JSON, show a table."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = tyro.cli(Config, description=__doc__)
    photos = read_photos(find_table(config.photos))[:: config.every]
    measured = measure(photos)
    engines = {name: summarise(photos, some) for name, some in measured.items()}
    theirs, own = engines["rapidocr"], engines["ours"]
    ratios = {name: round(own[name] / theirs[name], 3) for name in theirs}
    write_json(config.out, {"n_photos": len(photos), "engines": engines, "ours_to_rapidocr": ratios, **environment()})
    for name, values in [*engines.items(), ("ratio", ratios)]:
        logger.info("%-9s %s", name, "  ".join(f"{key} {value:g}" for key, value in values.items()))


def measure(photos: Sequence[Photo]) -> dict[str, list[tuple[list[str], float, float]]]:
    """Return texts, CPU seconds and peak MiB so far, for each engine and photo."""
    context = multiprocessing.get_context("spawn")
    found: dict[str, list[tuple[list[str], float, float]]] = {name: [] for name in ENGINES}
    pipes = {}
    for name in ENGINES:
        pipes[name], other = context.Pipe()
        context.Process(target=work, args=(name, other), daemon=True).start()
    for photo in tqdm(photos, unit="photo", disable=None):
        for name, pipe in pipes.items():
            pipe.send(photo.path)
            found[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(None)
    return found


def summarise(photos: Sequence[Photo], measured: Sequence[tuple[list[str], float, float]]) -> dict[str, float]:
    """Return the figures of one engine."""
    seconds = [one[1] for one in measured]
    texts = [one[0] for one in measured]
    reader, vocabulary = Reader(skincare_labels()), _vocabulary()
    said = [reader.predict(some) for some in texts]
    right = [
        one.status != "no_text" and reader.labels.names[int(np.argmax(one.log_probabilities))] == photo.category
        for one, photo in zip(said, photos, strict=True)
    ]
    values = {
        "cpu_s": np.mean(seconds),
        "cpu_s_median": np.median(seconds),
        "cpu_s_p95": np.quantile(seconds, 0.95),
        "peak_mib": max(one[2] for one in measured),
        "with_text": np.mean([bool(some) for some in texts]),
        "words": np.mean([len(_words(some) & vocabulary) for some in texts]),
        "accuracy": np.mean(right),
    }
    return {name: round(float(value), 3) for name, value in values.items()}


def _vocabulary() -> set[str]:
    return set().union(*(_words([phrase.text]) for phrase in phrases_of(skincare_labels())))


def _words(texts: Sequence[str]) -> set[str]:
    return set(re.findall("[a-z]{4,}", fold(" ".join(texts))))


if __name__ == "__main__":
    main()

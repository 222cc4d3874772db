"""Compare time, memory and output of our OCR engine with rapidocr's own driver.

Each runs in its own process with one thread. They alternate photo by photo, so other load slows both alike.

cpu_s       CPU seconds per photo, including decoding
peak_mib    peak memory of the process, including libraries
with_text   share of the photos with at least one line
words       mean number of words of the phrase table (four letters or more) per photo
accuracy    accuracy of the reader with the phrase table alone, as in a fresh clone

Out: benchmarks/results/ocr_speed.json and a table.
Command: python benchmarks/ocr_speed.py --photos FOLDER|FILE.csv [--every 3]
Time: three seconds per photo.
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
    """Command line of the benchmark."""

    photos: Path
    """A CSV of photos, or the folder that contains it."""
    every: int = 1
    """Use every n-th photo."""
    out: Path = REPOSITORY / "benchmarks" / "results" / "ocr_speed.json"
    """Output file."""


def own_engine() -> Callable[[Pixels], list[str]]:
    """Return a function that reads an image with our engine."""
    engine = make_engine()
    return lambda pixels: [line.text for line in engine.read(pixels)]


def stock_rapidocr() -> Callable[[Pixels], list[str]]:
    """Return a function that reads an image with rapidocr's driver: its defaults, one thread, no line classifier."""
    from rapidocr import RapidOCR

    engine = RapidOCR(params={"Global.log_level": "critical", "EngineConfig.onnxruntime.intra_op_num_threads": 1})

    def read(pixels: Pixels) -> list[str]:
        found: Any = engine(np.ascontiguousarray(pixels[:, :, ::-1]), use_cls=False)
        return list(found.txts or ())

    return read


ENGINES: Final = {"rapidocr": stock_rapidocr, "ours": own_engine}


def work(engine: str, pipe: Connection) -> None:
    """Read the photos whose paths arrive through the pipe; send back texts, CPU seconds and peak memory."""
    cv2.setNumThreads(1)
    read = ENGINES[engine]()
    read(np.full((64, 64, 3), 255, np.uint8))
    while (path := pipe.recv()) is not None:
        started = time.process_time()
        texts = read(images.decode_with_notes(path.read_bytes()).pixels)
        seconds = time.process_time() - started
        pipe.send((texts, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def main() -> None:
    """Run both engines on all photos, write the JSON, log a table."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = tyro.cli(Config, description=__doc__)
    photos = read_photos(find_table(config.photos))[:: config.every]
    measured = measure(photos)
    engines = {name: summarise(photos, readings) for name, readings in measured.items()}
    theirs, own = engines["rapidocr"], engines["ours"]
    ratios = {name: round(own[name] / theirs[name], 3) for name in theirs}
    write_json(config.out, {"n_photos": len(photos), "engines": engines, "ours_to_rapidocr": ratios, **environment()})
    for name, values in [*engines.items(), ("ratio", ratios)]:
        logger.info("%-9s %s", name, "  ".join(f"{key} {value:g}" for key, value in values.items()))


def measure(photos: Sequence[Photo]) -> dict[str, list[tuple[list[str], float, float]]]:
    """Return engine -> (texts, CPU seconds, peak MiB so far) of each photo."""
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
    predicted = [reader.predict(lines) for lines in texts]
    right = [
        one.status != "no_text" and reader.labels.names[int(np.argmax(one.log_probabilities))] == photo.category
        for one, photo in zip(predicted, photos, strict=True)
    ]
    values = {
        "cpu_s": np.mean(seconds),
        "cpu_s_median": np.median(seconds),
        "cpu_s_p95": np.quantile(seconds, 0.95),
        "peak_mib": max(one[2] for one in measured),
        "with_text": np.mean([bool(lines) for lines in texts]),
        "words": np.mean([len(_words(lines) & vocabulary) for lines in texts]),
        "accuracy": np.mean(right),
    }
    return {name: round(float(value), 3) for name, value in values.items()}


def _vocabulary() -> set[str]:
    return set().union(*(_words([phrase.text]) for phrase in phrases_of(skincare_labels())))


def _words(texts: Sequence[str]) -> set[str]:
    return set(re.findall("[a-z]{4,}", fold(" ".join(texts))))


if __name__ == "__main__":
    main()

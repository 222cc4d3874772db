"""OCR of many image files in worker processes, with a cache keyed by the content of the files."""

import functools
import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
from tqdm import tqdm

from skincare import images, worker_pool
from skincare.images import BrokenImageError, Pixels
from skincare.text_reading import ocr, scripts
from skincare.text_reading.ocr import EngineName, OcrEngine
from skincare.text_reading.ocr_cache import OcrCache
from skincare.text_reading.pack_text import PackText, PackTextStatus
from skincare.text_reading.rapid_ocr import DETECTION_PX
from skincare.worker_pool import Engine


class ImageFile(NamedTuple):
    """An image to read. `file`: its path relative to the root, as written to the row."""

    image_id: str
    file: str
    path: Path
    # The bytes, if they are in memory; `path` is not read then.
    content: bytes | None = None
    # Why there is no image; the row is `unreadable` with this reason.
    reason: str = ""


class Task(NamedTuple):
    """One unit of work: an image, the OCR engine to use, its resolution and its full label."""

    image: ImageFile
    sha256: str
    ocr: EngineName
    detection_px: int
    engine: str
    # The result, if it is known already; it is returned as it is.
    known: PackText | None = None


class PackReader:
    """Reads the text on images and caches the results of files.

    Raises MissingInputError if the OCR engine is not installed.
    """

    def __init__(self, ocr_name: EngineName, cache: Path) -> None:
        self.name = ocr.engine_label(ocr_name)
        self._ocr_name: EngineName = ocr_name
        self._cache = cache

    def read_pixels(self, pixels: Pixels) -> PackText:
        """Return the text of an image (H, W, 3) uint8 RGB, read in this process; not cached."""
        return _read_pixels(PackText("", "", "", self.name, "no_text"), pixels, self._ocr_name, DETECTION_PX)

    def stream(self, files: Iterable[ImageFile]) -> Iterator[PackText]:
        """Yield the text of each image, in order, read on all cores; at most about 20 per core are in memory."""
        _use_one_thread()
        is_new: deque[bool] = deque()
        with OcrCache(self._cache) as cache:

            def tasks() -> Iterator[Task]:
                for file, sha256 in worker_pool.map_threads(_with_digest, files):
                    task = self._task(file, sha256, cache)
                    is_new.append(task.known is None)
                    yield task

            for found in worker_pool.map_ordered("local", extract, tasks(), failed_row):
                # Failures may be transient, so they are not cached.
                if is_new.popleft() and found.status != "failed" and found.sha256:
                    cache.put(found)
                yield found

    def _task(self, file: ImageFile, sha256: str, cache: OcrCache) -> Task:
        known = None
        if file.reason:
            known = PackText(file.image_id, file.file, "", self.name, "unreadable", file.reason)
        elif sha256 and (cached := cache.get(sha256, self.name)):
            known = replace(cached, image_id=file.image_id, file=file.file)
        return Task(file, sha256, self._ocr_name, DETECTION_PX, self.name, known)


def extract_all(
    files: Sequence[ImageFile], cache: OcrCache, name: EngineName, engine: Engine = "local",
    detection_px: int = DETECTION_PX, *, reread: bool = False,
) -> tuple[list[PackText], int]:  # fmt: skip
    """Return the text of each image, in order, and the number of images that were not cached.

    Images of the same bytes are read once. `reread` ignores cached results.
    Raises MissingInputError if the OCR engine is not installed.
    """
    _use_one_thread()
    label = ocr.engine_label(name, detection_px)
    digests = [sha256 for _, sha256 in worker_pool.map_threads(_with_digest, files)]
    known: dict[str, PackText] = {}
    new: dict[str, Task] = {}
    for file, sha256 in zip(files, digests, strict=True):
        key = sha256 or file.file
        found = cache.get(sha256, label) if sha256 and not reread and key not in known else None
        if found:
            known[key] = found
        elif key not in known:
            new.setdefault(key, Task(file, sha256, name, detection_px, label))
    for key, found in _read(new, engine):
        # Failures may be transient, so they are not cached.
        if found.status != "failed" and found.sha256 == key:
            cache.put(found)
        known[key] = found
    rows = (known[sha256 or file.file] for file, sha256 in zip(files, digests, strict=True))
    named = [replace(row, image_id=file.image_id, file=file.file) for row, file in zip(rows, files, strict=True)]
    return named, len(new)


def _read(new: dict[str, Task], engine: Engine) -> Iterator[tuple[str, PackText]]:
    found = worker_pool.map_ordered(engine, extract, new.values(), failed_row)
    bar = partial(tqdm, desc="read_text", total=len(new), unit="image", disable=None if new else True)
    return zip(new, bar(found), strict=True)


def extract(task: Task) -> PackText:
    """Return the text of one image; errors become the row's status and reason.

    Raises MissingInputError if the engine is not installed.
    """
    if task.known is not None:
        return task.known
    row = PackText(task.image.image_id, task.image.file, task.sha256, task.engine, "unreadable")
    try:
        content = task.image.path.read_bytes() if task.image.content is None else task.image.content
        pixels = images.decode_with_notes(content).pixels
    except FileNotFoundError:
        return replace(row, reason="missing_file")
    except OSError as error:
        return replace(row, reason=f"unreadable_file: {error.strerror}")
    except BrokenImageError as error:
        return replace(row, reason=str(error))
    return _read_pixels(row, pixels, task.ocr, task.detection_px)


def _read_pixels(row: PackText, pixels: Pixels, name: EngineName, detection_px: int) -> PackText:
    reader = _engine(name, detection_px)
    try:
        lines = tuple(reader.read(pixels))
    except Exception as error:
        # The OCR libraries raise many kinds of errors; one failed image must not end the run.
        return replace(row, status="failed", reason=f"{type(error).__name__}: {error}"[:200])
    status: PackTextStatus = "read" if lines else "no_text"
    return replace(row, status=status, lines=lines, other_script=scripts.misread_script(lines))


def failed_row(task: Task) -> PackText:
    """Return the row of an image on which the worker process crashed or timed out."""
    row = PackText(task.image.image_id, task.image.file, task.sha256, task.engine, "failed")
    return replace(row, reason="crashed the reader or took too long")


@functools.cache
def _engine(name: EngineName, detection_px: int) -> OcrEngine:
    """Return the OCR engine, created once per process."""
    _use_one_thread()
    return ocr.make_engine(name, detection_px=detection_px)


def _use_one_thread() -> None:
    """Limit OpenCV to one thread, so that workers do not compete for cores.

    Call it before forking: a child that is forked while OpenCV has a thread pool deadlocks when it sets the number.
    """
    if cv2.getNumThreads() != 1:
        cv2.setNumThreads(1)


def _with_digest(file: ImageFile) -> tuple[ImageFile, str]:
    """Return a file and the SHA-256 of its content, which is empty if it cannot be read."""
    if file.reason:
        return file, ""
    if file.content is not None:
        return file, hashlib.sha256(file.content).hexdigest()
    try:
        with file.path.open("rb") as opened:
            return file, hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError:
        return file, ""

"""Predictions of any number of images, as a stream: names in, rows out in the same order, in flat memory.

A few images per core are in flight: fetched and read by OCR ahead, decoded and predicted by one predictor in batches.
"""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from itertools import islice

from skincare.inference.image_predictions import ImagePrediction, InputImage, input_image
from skincare.inference.image_predictor import ImagePredictor
from skincare.text_reading.extraction import ImageFile, PackReader
from skincare.text_reading.pack_text import PackText


def predict_all(
    predictor: ImagePredictor, files: Iterable[ImageFile], batch_size: int
) -> Generator[list[ImagePrediction]]:
    """Yield the rows of each batch of images, in order; of one image at a time for a predictor without a model."""
    size = batch_size if predictor.needs_pixels else 1
    images: Iterator[tuple[ImageFile, PackText | None]]
    if predictor.reads_text and predictor.packs is not None:
        images = _with_text(files, predictor.packs)
    else:
        images = ((file, None) for file in files)
    while batch := list(islice(images, size)):
        yield predictor.predict([_input(file, pack, predictor) for file, pack in batch])


def _with_text(files: Iterable[ImageFile], packs: PackReader) -> Iterator[tuple[ImageFile, PackText | None]]:
    waiting: deque[ImageFile] = deque()

    def passed() -> Iterator[ImageFile]:
        for file in files:
            waiting.append(file)
            yield file

    for pack in packs.stream(passed()):
        yield waiting.popleft(), pack


def _input(file: ImageFile, pack: PackText | None, predictor: ImagePredictor) -> InputImage:
    if file.reason or not predictor.needs_pixels:
        return InputImage(file.file, None, file.reason, pack)
    try:
        content = file.path.read_bytes() if file.content is None else file.content
    except OSError as error:
        return InputImage(file.file, None, f"unreadable_file: {error.strerror}")
    image = input_image(file.file, content)
    return InputImage(image.file, image.pixels, image.reason, pack)

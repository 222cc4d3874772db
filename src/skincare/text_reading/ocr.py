"""OCR engines behind one interface: an image in, its lines of text out.

`rapidocr` is the default: the wheel holds its models (PP-OCRv6 small, Apache-2.0), nothing is fetched.
Neither it nor onnxruntime is imported before an engine is made.
"""

import importlib.metadata
from typing import Any, Final, Literal, Protocol

import numpy as np

from skincare.errors import MissingInputError, StageError
from skincare.images import Pixels
from skincare.text_reading.pack_text import Box, TextLine
from skincare.text_reading.reading_order import in_reading_order

EngineName = Literal["rapidocr", "tesseract"]

_REMEDY: Final = "Install it with `python -m pip install -r requirements.txt` (or `make reader`)."


class OcrEngine(Protocol):
    """Reads images. `name`: engine, models, versions and settings, all that decides what is read."""

    @property
    def name(self) -> str:
        """Return what decides what is read."""
        ...

    def read(self, image: Pixels) -> list[TextLine]:
        """Return the lines of an image (H, W, 3) uint8 RGB in reading order."""
        ...


def make_engine(name: EngineName = "rapidocr") -> OcrEngine:
    """Return an engine that is ready to read; raises MissingInputError where its library is not installed."""
    if name == "tesseract":
        raise StageError("--ocr tesseract is not built yet")
    return RapidOcrEngine()


class RapidOcrEngine:
    """PP-OCRv6 by rapidocr on onnxruntime."""

    def __init__(self) -> None:
        try:
            from rapidocr import RapidOCR
        except ImportError as error:
            raise MissingInputError("library of the OCR", error.name or "rapidocr", _REMEDY) from error
        self._engine = RapidOCR(
            params={"Global.log_level": "critical", "EngineConfig.onnxruntime.intra_op_num_threads": 1}
        )
        versions = (f"{library} {importlib.metadata.version(library)}" for library in ("rapidocr", "onnxruntime"))
        self.name = ", ".join([*versions, "PP-OCRv6 small"])

    def read(self, image: Pixels) -> list[TextLine]:
        """Return the lines of an image (H, W, 3) uint8 RGB in reading order."""
        height, width = image.shape[:2]
        # Its models were trained on BGR.
        found: Any = self._engine(np.ascontiguousarray(image[:, :, ::-1]), use_cls=False)
        if found.boxes is None or found.txts is None:
            return []
        lines = zip(found.boxes, found.txts, found.scores, strict=True)
        return in_reading_order(_line(text, score, box, width, height) for box, text, score in lines)


def _line(text: str, score: float, box: Any, width: int, height: int) -> TextLine:
    """Return a line from a box (4, 2) in pixels, clockwise from the top left."""
    corners = np.asarray(box, np.float64)
    sides = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
    line_px = float(min(sides[0] + sides[2], sides[1] + sides[3]) / 2)
    shares: Box = tuple((round(x / width, 5), round(y / height, 5)) for x, y in corners.tolist())  # type: ignore[assignment]
    return TextLine(text, round(float(score), 4), shares, round(line_px / height, 5))

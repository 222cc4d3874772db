"""OCR engines behind one interface: an image in, its lines of text out.

`rapidocr` is the default: the wheel holds its models (PP-OCRv6 small, Apache-2.0), nothing is fetched. `tesseract` has
Tesseract read the lines of other scripts, where its program and language data are installed.
No engine's library is imported before the engine is made.
"""

from typing import Literal, Protocol

from skincare.images import Pixels
from skincare.text_reading.pack_text import TextLine
from skincare.text_reading.rapid_ocr import DETECTION_PX, RapidOcrEngine, label

EngineName = Literal["rapidocr", "tesseract"]


class OcrEngine(Protocol):
    """What reads images."""

    @property
    def name(self) -> str:
        """Return engine, models and versions: what decides what is read."""
        ...

    def read(self, image: Pixels) -> list[TextLine]:
        """Return the lines of an image (H, W, 3) uint8 RGB in reading order."""
        ...


def make_engine(name: EngineName = "rapidocr", n_threads: int = 1, detection_px: int = DETECTION_PX) -> OcrEngine:
    """Return an engine that is ready to read; raises MissingInputError where its library is not installed.

    More threads than one read one image sooner and many images later; lines are looked for in an image's content at
    `detection_px` pixels at most.
    """
    from skincare.text_reading.tesseract_ocr import TesseractEngine

    rapid = RapidOcrEngine(n_threads, detection_px)
    return TesseractEngine(rapid) if name == "tesseract" else rapid


def engine_label(name: EngineName, detection_px: int = DETECTION_PX) -> str:
    """Return the name of the engine that `make_engine` would make, without making it.

    Raises MissingInputError where something of it is not installed.
    """
    from skincare.text_reading import tesseract_ocr

    rapid = label(detection_px)
    return f"{rapid}; {tesseract_ocr.label()}" if name == "tesseract" else rapid

"""OCR engines with a common interface: image in, lines of text out.

`rapidocr` is the default: its wheel contains the models (PP-OCRv6 small, Apache-2.0), so nothing is downloaded.
`tesseract` adds Tesseract for lines in other scripts; it needs the program and its language data.
The libraries are imported when an engine is created.
"""

from typing import Literal, Protocol

from skincare.images import Pixels
from skincare.text_reading.pack_text import TextLine
from skincare.text_reading.rapid_ocr import DETECTION_PX, RapidOcrEngine, label

EngineName = Literal["rapidocr", "tesseract"]


class OcrEngine(Protocol):
    """Interface of an OCR engine."""

    @property
    def name(self) -> str:
        """Return engine, models, versions and settings: everything that the output depends on."""
        ...

    def read(self, image: Pixels) -> list[TextLine]:
        """Return the lines of an image (H, W, 3) uint8 RGB in reading order."""
        ...


def make_engine(name: EngineName = "rapidocr", n_threads: int = 1, detection_px: int = DETECTION_PX) -> OcrEngine:
    """Return an engine; raises MissingInputError if its library is not installed.

    More than one thread reduces the latency of one image but also the throughput of many. `detection_px`: maximum
    number of pixels that the line detector receives.
    """
    from skincare.text_reading.tesseract_ocr import TesseractEngine

    rapid = RapidOcrEngine(n_threads, detection_px)
    return TesseractEngine(rapid) if name == "tesseract" else rapid


def engine_label(name: EngineName, detection_px: int = DETECTION_PX) -> str:
    """Return the name of the engine that `make_engine` returns, without creating it.

    Raises MissingInputError if its library, program or language data are not installed.
    """
    from skincare.text_reading import tesseract_ocr

    rapid = label(detection_px)
    return f"{rapid}; {tesseract_ocr.label()}" if name == "tesseract" else rapid

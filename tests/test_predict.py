"""Every image gets one row, whatever is wrong with it."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from importlib import metadata
from typing import get_args

import pytest
from PIL import Image

import predict
from skincare import images
from skincare.errors import MissingInputError, StageError
from skincare.inference import decoders, image_predictor
from skincare.inference.decoders import make_decoder
from skincare.inference.image_predictions import ImagePrediction
from skincare.inference.image_predictor import PredictorSettings
from skincare.inference.prediction_files import format_rows
from skincare.labels import skincare_labels
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.heads import ClassificationHead, save_head
from skincare.modeling.loading import load_processor
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.paths import REPOSITORY, TINY_MODEL, Layout
from skincare.text_reading import extraction
from skincare.text_reading.pack_text import TextLine
from tests.dataset_helpers import jpeg, pack

CATEGORIES = skincare_labels().names


def run(tmp_path, images, model=str(TINY_MODEL), **config):
    settings = predict.Config(root=tmp_path, images=(str(images),), model=model, **config)
    return predict.run(settings, Layout(tmp_path))


@pytest.fixture
def folder(tmp_path):
    found = tmp_path / "images"
    (found / "deeper").mkdir(parents=True)
    (found / "a.jpg").write_bytes(jpeg(pack(1, 300)))
    (found / "broken.png").write_bytes(b"no image")
    (found / "deeper" / "b.JPG").write_bytes(jpeg(pack(2, 300)))
    (found / "notes.txt").write_text("no image either")
    return found


def test_a_folder_gives_a_row_per_image(tmp_path, folder, capsys):
    summary = run(tmp_path, folder)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0].removeprefix(f"{folder}/") for line in lines[1:]] == ["a.jpg", "broken.png", "deeper/b.JPG"]
    assert summary.counts == {"answered": 0, "abstained": 2, "failed": 1}


def test_csv_holds_the_same_rows(tmp_path, folder):
    run(tmp_path, folder, csv=tmp_path / "out.csv")
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [row["status"] for row in rows] == ["offlist", "unreadable", "offlist"]
    assert all(row["category"] == "Unknown" for row in rows)
    assert rows[0]["answer"].startswith("a")
    assert [row["probability"] for row in rows] == ["", "", ""], "free text gives none"


def answered(tmp_path, folder, **config):
    summary = run(tmp_path, folder, csv=tmp_path / "out.csv", **config)
    return summary, list(csv.DictReader((tmp_path / "out.csv").open()))


def test_a_ranking_gives_the_probability_of_the_predicted_category(tmp_path, folder, tiny_model):
    network, encoder = (
        CachedVLM(tiny_model.requires_grad_(False)),
        PromptEncoder(load_processor(TINY_MODEL), skincare_labels()),
    )
    image = encoder.patches(images.decode((folder / "a.jpg").read_bytes()))
    decoded = make_decoder("rank", network, encoder)([image.grid], network.vision_features([image]))[0]

    _, rows = answered(tmp_path, folder, decoder="rank")
    assert (rows[0]["category"], rows[0]["answer"]) == (decoded.text, decoded.text)
    assert float(rows[0]["probability"]) == pytest.approx(math.exp(max(decoded.log_probabilities)), abs=1e-3)
    assert rows[1]["probability"] == "", "an unreadable image"
    _, softened = answered(tmp_path, folder, decoder="rank", temperature=1e6)
    assert float(softened[0]["probability"]) == pytest.approx(1 / len(CATEGORIES), abs=1e-3)
    assert softened[0]["category"] == rows[0]["category"]


def test_no_category_is_given_below_the_confidence_threshold(tmp_path, folder):
    _, rows = answered(tmp_path, folder, min_confidence=0.0)
    assert [row["status"] for row in rows] == ["exact", "unreadable", "exact"], "ranked, though no decoder was named"
    lower, higher = sorted((rows[0], rows[2]), key=lambda row: float(row["probability"]))
    between = (float(lower["probability"]) + float(higher["probability"])) / 2

    summary, rows = answered(tmp_path, folder, min_confidence=between)
    assert summary.counts == {"answered": 1, "abstained": 1, "failed": 1}
    assert summary.results["predictor"].endswith("decoder rank")
    withheld = {**lower, "category": "Unknown", "status": "abstained", "outcome": "abstained", "parent": ""}
    assert sorted((rows[0], rows[2]), key=lambda row: float(row["probability"])) == [withheld, higher]
    assert rows[1]["status"] == "unreadable"


def test_the_head_of_a_model_gives_probabilities(tmp_path, folder):
    model = tmp_path / "model"
    shutil.copytree(TINY_MODEL, model)
    save_head(model, ClassificationHead(128, 14), skincare_labels())
    summary, rows = answered(tmp_path, folder, model=str(model), min_confidence=0.08)
    assert summary.results["predictor"].endswith("decoder head")
    assert [row["probability"] for row in rows] == ["0.0714", "", "0.0714"], "an untrained head finds all 14 alike"
    assert [row["status"] for row in rows] == ["abstained", "unreadable", "abstained"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_confidence": 0.5, "decoder": "generate"}, "generate gives no probabilities; name rank or head"),
        ({"min_confidence": 0.5, "decoder": "constrained"}, "constrained gives no probabilities"),
        ({"min_confidence": 90}, "--min-confidence 90 is not a probability"),
        ({"min_confidence": float("nan")}, "--min-confidence nan is not a probability"),
        ({"temperature": 0.0}, "--temperature 0 is not a number above 0"),
        ({"temperature": float("inf")}, "--temperature inf"),
    ],
)
def test_a_threshold_without_probabilities_is_refused(tmp_path, folder, options, message):
    with pytest.raises(StageError, match=message):
        run(tmp_path, folder, **options)


def test_an_output_that_cannot_be_written_is_an_error_before_the_first_prediction(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(predict, "load_predictor", None)
    with pytest.raises(OSError, match="no file that can be replaced"):
        predict.run(predict.Config(images=(str(folder),), csv=folder), Layout(tmp_path))


def test_one_image_is_enough_and_the_batch_size_changes_nothing(tmp_path, folder, capsys):
    run(tmp_path, folder / "a.jpg")
    alone = capsys.readouterr().out.splitlines()[1].split()[1:]
    run(tmp_path, folder, batch_size=1)
    assert capsys.readouterr().out.splitlines()[1].split()[1:] == alone


@pytest.mark.parametrize("name", ["absent.jpg", "empty"])
def test_a_folder_without_images_is_an_error(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInputError, match="image"):
        run(tmp_path, tmp_path / name)


def test_a_missing_fine_tuned_model_is_an_error_with_the_stage_to_run(tmp_path, folder):
    with pytest.raises(MissingInputError, match=r"finetune\.py"):
        run(tmp_path, folder, model="", by="model")


def test_generated_text_cannot_control_the_terminal():
    rows = [ImagePrediction("a\n.jpg", "Unknown", None, "offlist", "two\nlines \x1b[31mred")]
    table = format_rows(rows, "table")
    assert len(table.splitlines()) == 1
    assert "\x1b" not in table


def test_generated_text_is_no_formula_in_a_spreadsheet():
    text = format_rows([ImagePrediction("a.jpg", "Unknown", None, "offlist", "=HYPERLINK(0)")], "csv")
    assert text.startswith("a.jpg,Unknown,,offlist,'=HYPERLINK(0),")


BOX = ((0.0, 0.0), (1.0, 0.0), (1.0, 0.1), (0.0, 0.1))


WORDS = {200: ["ACME", "Face Wash"], 100: ["ACME"], 0: []}


class ReadByColour:
    """Stands in for OCR: the words that an image's red value means."""

    def read(self, pixels):
        return [TextLine(text, 0.9, BOX, 0.1) for text in WORDS[int(pixels[0, 0, 0])]]


@pytest.fixture
def packs(tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "_engine", lambda *_: ReadByColour())
    monkeypatch.setattr(extraction.ocr, "engine_label", lambda name: "fake engine")
    found = tmp_path / "packs"
    found.mkdir()
    for name, red in (("a.png", 200), ("b.png", 100), ("c.png", 0)):
        Image.new("RGB", (40, 40), (red, 0, 0)).save(found / name)
    (found / "broken.jpg").write_bytes(b"no image")
    return found


def test_the_reader_predicts_without_a_trained_model(tmp_path, packs):
    summary, rows = answered(tmp_path, packs, model="")
    assert [row["status"] for row in rows] == ["read", "abstained", "unreadable", "no_text"]
    assert [row["category"] for row in rows] == ["Cleanser", "Unknown", "Unknown", "Unknown"]
    assert [row["answer"] for row in rows][:2] == ["face wash", ""]
    assert float(rows[0]["probability"]) > 0.9 > 0.6 > float(rows[1]["probability"])
    assert summary.counts == {"answered": 1, "abstained": 2, "failed": 1}
    assert summary.results["predictor"] == "reader, fake engine"


def test_min_confidence_replaces_the_threshold_of_the_reader(tmp_path, packs):
    _, rows = answered(tmp_path, packs, model="", min_confidence=0.1)
    assert [row["status"] for row in rows] == ["read", "read", "unreadable", "no_text"], "no text is never an answer"
    _, rows = answered(tmp_path, packs, model="", min_confidence=1.0)
    assert [row["status"] for row in rows] == ["abstained", "abstained", "unreadable", "no_text"]


def trained(tmp_path):
    """Write a folder that passes for a model trained from the embedded one, as the newest run."""
    folder = Layout(tmp_path).finetuned_model("run")
    folder.mkdir(parents=True)
    shutil.copy(TINY_MODEL / "config.json", folder)
    return folder


def test_a_model_of_drawings_predicts_only_on_request_with_a_warning(tmp_path, packs, caplog):
    folder = trained(tmp_path)
    summary, _ = answered(tmp_path, packs, model="")
    assert summary.results["predictor"] == "reader, fake engine"
    shutil.copytree(TINY_MODEL, folder, dirs_exist_ok=True)
    summary, _ = answered(tmp_path, packs, model="", by="model")
    assert summary.results["predictor"] == f"{folder}, decoder generate"
    assert "knows drawings of packs, not photos" in caplog.text


def test_a_real_fine_tuned_model_is_the_default(tmp_path, packs):
    folder = trained(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["hidden_size"] = 1536
    (folder / "config.json").write_text(json.dumps(config))
    assert not image_predictor.is_by_reader(PredictorSettings(), Layout(tmp_path))
    assert image_predictor.is_by_reader(PredictorSettings(by="reader"), Layout(tmp_path))


def test_the_reader_loads_no_model(tmp_path, packs):
    with pytest.raises(StageError, match="uses no model"):
        run(tmp_path, packs, by="reader")


def absent(library):
    raise metadata.PackageNotFoundError(library)


def test_a_missing_ocr_library_is_an_error_with_a_remedy(tmp_path, packs, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr("importlib.metadata.version", absent)
    with pytest.raises(MissingInputError, match="make reader"):
        run(tmp_path, packs, model="")


def test_the_reader_starts_without_torch_and_without_scikit_learn():
    code = (
        "import sys, predict, skincare.inference.text_predictor, skincare.text_reading.reader_store as store\n"
        "store.Reader(store.labels_of(store.Layout(store.Path('.')))).predict(['Face Wash'])\n"
        "print(sorted({'torch', 'transformers', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY / "src", capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "[]", finished.stderr


def test_the_decoders_are_those_of_the_model():
    assert get_args(predict.DecoderName) == decoders.NAMES


def test_the_newest_run_is_the_default_model(tmp_path):
    layout = Layout(tmp_path)
    for name, modified in (("b", 200), ("c", 300), ("a", 100)):
        config = layout.finetuned_model(name) / "config.json"
        config.parent.mkdir(parents=True)
        config.write_text("{}")
        os.utime(config, (modified, modified))
    assert image_predictor.newest_model(layout) == layout.finetuned_model("c")


def test_the_reader_needs_only_what_its_requirements_pin():
    code = (
        "import sys, predict, skincare.inference.text_predictor, skincare.inference.product_predictor\n"
        "import skincare.text_reading.reader_store, skincare.text_reading.rapid_ocr\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY / "src", capture_output=True, text=True, check=True
    )
    modules = set(found.stdout.split())
    all_pins, reader_pins = (
        dict(
            line.split("==") for line in (REPOSITORY / name).read_text().split("\n") if "==" in line and line[0] != "#"
        )
        for name in ("requirements.txt", "requirements-reader.txt")
    )
    imported = {pin for pin in all_pins if modules & _modules_of(pin)}
    assert {"pebble", "pydantic"} <= imported <= set(reader_pins)
    assert reader_pins.items() <= all_pins.items()


def _modules_of(package):
    """Return the top-level modules of an installed package; `packages_distributions` takes 10 s for all packages."""
    record = metadata.distribution(package.partition("[")[0]).read_text("RECORD")
    return {line.partition(",")[0].partition("/")[0].removesuffix(".py") for line in record.splitlines()}

"""Any picture or folder gets one row each, whatever is wrong with it."""

import csv
import math
import shutil

import pytest

import predict
from skincare import images
from skincare.answering.decoders import make_decoder
from skincare.categories import CATEGORIES
from skincare.errors import MissingInputError, StageError
from skincare.modelling.batches import PromptEncoder
from skincare.modelling.heads import ClassificationHead, save_head
from skincare.modelling.model import load_processor
from skincare.modelling.recogniser import Recogniser
from skincare.paths import TINY_MODEL, Layout
from tests.dataset_helpers import jpeg, pack


def run(tmp_path, pictures, model=str(TINY_MODEL), **config):
    settings = predict.Config(root=tmp_path, pictures=pictures, model=model, **config)
    return predict.run(settings, Layout(tmp_path))


@pytest.fixture
def folder(tmp_path):
    found = tmp_path / "pictures"
    (found / "deeper").mkdir(parents=True)
    (found / "a.jpg").write_bytes(jpeg(pack(1, 300)))
    (found / "broken.png").write_bytes(b"no picture")
    (found / "deeper" / "b.JPG").write_bytes(jpeg(pack(2, 300)))
    (found / "notes.txt").write_text("no picture either")
    return found


def test_a_folder_gives_a_row_per_picture(tmp_path, folder, capsys):
    summary = run(tmp_path, folder)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0].removeprefix(f"{folder}/") for line in lines[1:]] == ["a.jpg", "broken.png", "deeper/b.JPG"]
    assert summary.counts == {"named": 0, "unreadable": 1, "unsure": 0, "unnamed": 2}


def test_a_csv_says_the_same(tmp_path, folder):
    run(tmp_path, folder, csv=tmp_path / "out.csv")
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [row["status"] for row in rows] == ["offlist", "unreadable", "offlist"]
    assert all(row["category"] == "Unknown" for row in rows)
    assert rows[0]["answer"].startswith("a")
    assert [row["probability"] for row in rows] == ["", "", ""], "free text gives none"


def answered(tmp_path, folder, **config):
    summary = run(tmp_path, folder, csv=tmp_path / "out.csv", **config)
    return summary, list(csv.DictReader((tmp_path / "out.csv").open()))


def test_a_ranking_gives_the_probability_of_the_named_category(tmp_path, folder, tiny_model):
    recogniser, encoder = Recogniser(tiny_model.requires_grad_(False)), PromptEncoder(load_processor(TINY_MODEL))
    picture = encoder.pixels(images.decode((folder / "a.jpg").read_bytes()))
    said = make_decoder("rank", recogniser, encoder)([picture.grid], recogniser.picture_states([picture]))[0]

    _, rows = answered(tmp_path, folder, decoder="rank")
    assert (rows[0]["category"], rows[0]["answer"]) == (said.text, said.text)
    assert float(rows[0]["probability"]) == pytest.approx(math.exp(max(said.log_probabilities)), abs=1e-3)
    assert rows[1]["probability"] == "", "an unreadable picture"
    _, softened = answered(tmp_path, folder, decoder="rank", temperature=1e6)
    assert float(softened[0]["probability"]) == pytest.approx(1 / len(CATEGORIES), abs=1e-3)
    assert softened[0]["category"] == rows[0]["category"]


def test_below_the_wanted_confidence_nothing_is_named(tmp_path, folder):
    _, rows = answered(tmp_path, folder, min_confidence=0.0)
    assert [row["status"] for row in rows] == ["exact", "unreadable", "exact"], "ranked, though no decoder was named"
    lower, higher = sorted((rows[0], rows[2]), key=lambda row: float(row["probability"]))
    between = (float(lower["probability"]) + float(higher["probability"])) / 2

    summary, rows = answered(tmp_path, folder, min_confidence=between)
    assert summary.counts == {"named": 1, "unreadable": 1, "unsure": 1, "unnamed": 0}
    assert summary.results["decoder"] == "rank"
    unsure = {**lower, "category": "Unknown", "status": "unsure"}
    assert sorted((rows[0], rows[2]), key=lambda row: float(row["probability"])) == [unsure, higher]
    assert rows[1]["status"] == "unreadable"


def test_a_models_head_says_how_sure_it_is(tmp_path, folder):
    model = tmp_path / "model"
    shutil.copytree(TINY_MODEL, model)
    save_head(model, ClassificationHead(128))
    summary, rows = answered(tmp_path, folder, model=str(model), min_confidence=0.08)
    assert summary.results["decoder"] == "head"
    assert [row["probability"] for row in rows] == ["0.0714", "", "0.0714"], "an untrained head finds all 14 alike"
    assert [row["status"] for row in rows] == ["unsure", "unreadable", "unsure"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_confidence": 0.5, "decoder": "generate"}, "generate gives no probabilities; name rank or head"),
        ({"min_confidence": 0.5, "decoder": "constrained"}, "constrained gives no probabilities"),
        ({"min_confidence": 90}, "--min-confidence 90 is no probability"),
        ({"min_confidence": float("nan")}, "--min-confidence nan is no probability"),
        ({"temperature": 0.0}, "--temperature 0 is no number above 0"),
        ({"temperature": float("inf")}, "--temperature inf"),
    ],
)
def test_a_confidence_that_cannot_be_had_is_refused(tmp_path, folder, options, message):
    with pytest.raises(StageError, match=message):
        run(tmp_path, folder, **options)


def test_one_picture_is_enough_and_batches_change_nothing(tmp_path, folder, capsys):
    run(tmp_path, folder / "a.jpg")
    alone = capsys.readouterr().out.splitlines()[1].split()[1:]
    run(tmp_path, folder, batch_size=1)
    assert capsys.readouterr().out.splitlines()[1].split()[1:] == alone


@pytest.mark.parametrize("name", ["absent.jpg", "empty"])
def test_nothing_to_look_at_is_explained(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInputError, match="picture"):
        run(tmp_path, tmp_path / name)


def test_without_a_fine_tuned_model_the_stage_is_named(tmp_path, folder):
    with pytest.raises(MissingInputError, match=r"finetune\.py"):
        predict.run(predict.Config(root=tmp_path, pictures=folder), Layout(tmp_path))


def test_words_of_a_model_cannot_control_the_terminal():
    rows = [predict.Row("a\n.jpg", "Unknown", None, "offlist", "two\nlines \x1b[31mred")]
    table = predict._table(rows)
    assert len(table.splitlines()) == 2
    assert "\x1b" not in table


def test_words_of_a_model_are_no_formula_in_a_spreadsheet():
    text = predict._csv([predict.Row("a.jpg", "Unknown", None, "offlist", "=HYPERLINK(0)")])
    assert text.splitlines()[1] == "a.jpg,Unknown,,offlist,'=HYPERLINK(0)"

"""Any picture or folder gets one row each, whatever is wrong with it."""

import csv

import pytest

import predict
from skincare.errors import MissingInputError
from skincare.paths import TINY_MODEL, Layout
from tests.dataset_helpers import jpeg, pack


def run(tmp_path, pictures, **config):
    settings = predict.Config(root=tmp_path, pictures=pictures, model=str(TINY_MODEL), **config)
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
    assert summary.counts == {"named": 0, "unreadable": 1, "unnamed": 2}


def test_a_csv_says_the_same(tmp_path, folder):
    run(tmp_path, folder, csv=tmp_path / "out.csv")
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [row["status"] for row in rows] == ["offlist", "unreadable", "offlist"]
    assert all(row["category"] == "Unknown" for row in rows)
    assert rows[0]["answer"].startswith("a")


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
    rows = [predict.Row("a.jpg", "Unknown", "offlist", "two\nlines \x1b[31mred")]
    table = predict._table(rows)
    assert len(table.splitlines()) == 2
    assert "\x1b" not in table


def test_words_of_a_model_are_no_formula_in_a_spreadsheet():
    text = predict._csv([predict.Row("a.jpg", "Unknown", "offlist", "=HYPERLINK(0)")])
    assert text.splitlines()[1] == "a.jpg,Unknown,offlist,'=HYPERLINK(0)"

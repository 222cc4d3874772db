"""Scoring uses only stored predictions, is reproducible, and applies the current parser."""

import json

import pytest

import score
from skincare.errors import MissingInputError, StageError
from skincare.evaluation import confusion_plot, metrics
from skincare.evaluation.comparison import compare
from skincare.inference import predictions
from skincare.inference.answer_parser import PARSER_VERSION
from skincare.labels import skincare_labels
from skincare.paths import Layout
from tests.helpers import prediction


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    monkeypatch.setattr(confusion_plot, "draw_confusion_matrix", lambda *_: None)


@pytest.fixture
def layout(tmp_path):
    found = Layout(tmp_path)
    stored = [prediction(f"{i}_1", "Cleanser", None, text="Face wash") for i in range(4)]
    predictions.write_jsonl(found.zero_shot / "predictions.jsonl", [*stored, prediction("9_1", "Oil", "Oil")])
    run = found.finetune_log("r") / "test_predictions.jsonl"
    predictions.write_jsonl(run, [prediction(f"{i}_1", "Cleanser", "Cleanser") for i in range(4)])
    return found


def test_stored_texts_are_parsed_with_the_current_parser(layout):
    summary = score.run(score.Config(root=layout.root), layout)
    assert summary.counts == {"parsed equally": 5, "parsed differently": 4}
    found = predictions.read_jsonl(layout.zero_shot / "predictions.jsonl", skincare_labels())
    assert [(one.category, one.status) for one in found] == [("Cleanser", "alias")] * 4 + [("Oil", "exact")]
    assert {one.parser_version for one in found} == {PARSER_VERSION}
    assert json.loads((layout.zero_shot / "metrics.json").read_text())["accuracy"] == 1
    assert json.loads((layout.finetune_log("r") / "test_metrics.json").read_text())["n"] == 4


def test_merged_categories_are_scored_in_addition_to_the_plain_ones(layout):
    stored = [prediction(f"{i}_1", "Toner", "Mist" if i else "Oil") for i in range(4)]
    predictions.write_jsonl(layout.zero_shot / "predictions.jsonl", stored)
    score.run(score.Config(root=layout.root, merge=("Toner+Mist",)), layout)
    accuracies = {
        name: json.loads((layout.zero_shot / name).read_text())["accuracy"]
        for name in ("metrics.json", "metrics_merged.json")
    }
    assert accuracies == {"metrics.json": 0, "metrics_merged.json": 0.75}


def test_every_run_is_compared_with_the_baselines_again(layout):
    stored = [prediction(f"{i}_1", "Cleanser", "Oil", decoder="baseline:majority") for i in range(4)]
    predictions.write_jsonl(layout.baselines / "majority.jsonl", stored)
    score.run(score.Config(root=layout.root), layout)
    compared = json.loads((layout.finetune_log("r") / "baselines.json").read_text())
    assert compared["majority"]["difference"] == 1


def test_scoring_twice_changes_nothing(layout):
    def files():
        return {path: path.read_bytes() for path in layout.root.rglob("*.json*")}

    score.run(score.Config(root=layout.root), layout)
    first = files()
    score.run(score.Config(root=layout.root), layout)
    assert files() == first


def test_a_comparison_is_written_only_for_equal_test_images(layout):
    comparison = layout.finetune_log("r") / "comparison.json"
    score.run(score.Config(root=layout.root), layout)
    assert not comparison.exists()
    stored = [prediction(f"{i}_1", "Cleanser", None) for i in range(4)]
    predictions.write_jsonl(layout.zero_shot / "predictions.jsonl", stored)
    score.run(score.Config(root=layout.root, files=(layout.zero_shot / "predictions.jsonl",)), layout)
    trained = predictions.read_jsonl(layout.finetune_log("r") / "test_predictions.jsonl", skincare_labels())
    assert json.loads(comparison.read_text()) == metrics.to_json(compare(stored, trained))


def test_predictions_without_the_newer_fields_are_read(layout):
    path = layout.zero_shot / "predictions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        for key in ("parser_version", "image_sha256", "cache_key"):
            del line[key]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert score.run(score.Config(root=layout.root), layout).counts["parsed differently"] == 4


def test_two_decoders_in_one_file_are_refused(layout):
    path = layout.zero_shot / "predictions.jsonl"
    predictions.write_jsonl(path, [prediction("1_1", "Oil", "Oil", decoder=name) for name in ("rank", "generate")])
    with pytest.raises(StageError, match="two predictions of one image"):
        score.run(score.Config(root=layout.root, files=(path,)), layout)


def test_the_error_for_missing_predictions_names_the_stage(tmp_path):
    with pytest.raises(MissingInputError, match=r"zero_shot\.py"):
        score.run(score.Config(root=tmp_path), Layout(tmp_path))

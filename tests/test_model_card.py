"""The model card has valid hub metadata and the measured results, and its example runs."""

import ast
import dataclasses
import re
import shutil

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load

from skincare.evaluation import metrics
from skincare.labels import skincare_labels
from skincare.paths import TINY_MODEL
from skincare.reporting import model_card, report_data
from tests.dataset_helpers import jpeg, pack
from tests.helpers import prediction

CATEGORIES = skincare_labels().names

HOSTILE = "| `x` \n---\nlicense: mit\n<script>"


# The export check in the results of finetune.py, for a bfloat16 checkpoint.
EXPORT = {
    "checkpoint_dtype": "bfloat16", "is_fp32": True, "n_weights": 1000, "n_changed": 999, "n_changed_rounded": 17,
    "n_val": 40, "val": {
        "in training": {"loss": 1.25, "accuracy": 0.5, "n_other_answers": 0},
        "exported": {"loss": 1.2512, "accuracy": 0.5, "n_other_answers": 1},
        "rounded": {"loss": 1.375, "accuracy": 0.475, "n_other_answers": None},
    },
}  # fmt: skip


def data_of(model, **more):
    answers = [prediction(f"{i}_1", CATEGORIES[i % 14], CATEGORIES[i % 14 if i % 3 else 0]) for i in range(42)]
    results = {"run": "sample", "model": model, "recipe": "reference", "n_parameters": 1_929_728, "n_trainable": 3,
               "trainable_modules": [HOSTILE], "best_epoch": 2, "n_epochs": 3, "decoder": "generate",
               "recipe_settings": {"note": HOSTILE}, **more}  # fmt: skip
    finetune = {"results": results, "config": {"model": model}, "command": "python src/finetune.py", "git_commit": "",
                "machine": HOSTILE}  # fmt: skip
    return report_data.ReportData(
        stages={"finetune": finetune}, before=None, after=metrics.score(answers, skincare_labels()), comparison={},
        confidence={}, labels=skincare_labels(),
        history=[], images=[], plots={}, manifests={},
    )  # fmt: skip


def test_hub_metadata_holds_the_results(tmp_path):
    data = data_of("Qwen/Qwen2-VL-2B")
    path = tmp_path / "README.md"
    path.write_text(model_card.card(data), encoding="utf-8")
    card = ModelCard.load(path)
    assert card.data.base_model == "Qwen/Qwen2-VL-2B"
    assert card.data.license == metadata_load(path)["license"] == "apache-2.0"
    assert card.data.pipeline_tag == "image-text-to-text"
    found = {one.metric_type: one for one in card.data.eval_results}
    assert found["accuracy"].metric_value == pytest.approx(data.after.accuracy, abs=1e-4)
    assert found["f1"].metric_value == pytest.approx(data.after.f1_macro, abs=1e-4)
    assert f"{data.after.accuracy_low:.3f} to {data.after.accuracy_high:.3f}" in found["accuracy"].metric_name
    assert found["accuracy"].dataset_name == "Test split: 42 images of 42 products"


def test_a_question_with_quotes_stays_one_text_in_the_example():
    question = 'Is this a "mug"? It\'s \\ a kettle.'
    labels = dataclasses.replace(skincare_labels(), question=question)
    text = model_card.card(dataclasses.replace(data_of("Qwen/Qwen2-VL-2B"), labels=labels))
    code = re.search(r"^content = (.*)$", text, re.MULTILINE)[1]
    assert ast.literal_eval(code)[1]["text"] == question


@pytest.mark.parametrize("model", ["models/tiny-qwen2-vl", "/home/me/model", "Qwen/Qwen2-VL-72B"])
def test_unknown_licence_and_base_model_are_not_claimed(tmp_path, model):
    text = model_card.card(data_of(model))
    card = ModelCard(text)
    assert card.data.license == "unknown"
    assert (card.data.base_model is None) == (not model.startswith("Qwen/"))
    assert ("made to test the pipeline on rendered products" in text) == (model == "models/tiny-qwen2-vl")


def test_hostile_text_is_escaped():
    text = model_card.card(data_of("Qwen/Qwen2-VL-2B"))
    assert "<script>" not in text
    assert re.findall(r"(?m)^---$", text) == ["---", "---"]
    assert not re.search(r"(?m)^license: mit", text)


def test_card_shows_the_export_check_and_how_to_load_the_model():
    text = model_card.card(data_of("Qwen/Qwen2-VL-2B", export=EXPORT, recipe_settings={"adapter": {"rank": 16}}))
    assert "changed 99.9% of the 1,000 trainable weights" in text
    assert "rounded to bfloat16, 1.7% would differ" in text
    assert "| The exported folder, loaded in float32 as it specifies | 1.2512 | 50.0% | 1 of 40 |" in text
    assert "| The same, loaded in bfloat16 | 1.3750 | 47.5% |  |" in text
    assert "--dtype float32" in text
    assert 'PeftModel.from_pretrained(base_model, "adapter")' in text


def test_float32_checkpoint_has_no_rounding_row():
    val = {name: row for name, row in EXPORT["val"].items() if name != "rounded"}
    text = model_card.card(data_of("some/model", export=EXPORT | {"checkpoint_dtype": "float32", "val": val}))
    assert "the folder stores them in the dtype of the training" in text
    assert "--dtype float32" not in text
    assert "adapter/" not in text


@pytest.mark.slow
def test_example_of_the_card_runs(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    shutil.copytree(TINY_MODEL, folder)
    (folder / "pack.jpg").write_bytes(jpeg(pack(0, 320)))
    monkeypatch.chdir(folder)
    example = re.search(r"```python\n(.*?)```", model_card.card(data_of("models/tiny-qwen2-vl")), re.DOTALL)[1]
    names = {}
    exec(example, names)
    assert isinstance(names["answer"], str)
    assert names["answer"]


def test_card_of_a_product_model_says_what_it_cannot_read():
    field = {"n_known": 40, "n_absent": 25, "n_unscored": 3, "correct": 10, "omitted": 19, "substituted": 11,
             "invented": 4, "precision": 0.4, "recall": 0.25, "f1": 0.31, "f1_low": 0.21, "f1_high": 0.43}  # fmt: skip
    scores = {"n": 42, "n_products": 21, "json_valid": 0.96, "schema_valid": 0.91, "document": 0.185,
              "document_low": 0.167, "document_high": 0.202,
              "fields": [{"field": "size", **field}, {"field": "brand", **field, "f1": 0.9},
                         {**dict.fromkeys(field, 0), "field": "origin", "n_absent": 40}]}  # fmt: skip
    compared = {"size": {"low": -0.1}, "brand": {"low": 0.2}}
    results = {"split": "test", "finetuned": scores, "finetuned_minus_majority": compared}
    data = data_of("Qwen/Qwen2-VL-2B")
    image = report_data.TestImage("1_1", "Oil", None, prediction("1_1", "Oil", "Oil", target="product"), "")
    data = dataclasses.replace(
        data, images=[image], stages={**data.stages, "score_products": {"results": results}},
        field_confidence={"fields": {"brand": {
            "n_val": 88, "ece_before": 0.3, "ece": 0.139,
            "wanted": [{"wanted_risk": 0.1, "threshold": 0.625, "test_coverage": 0.4, "test_risk": 0.07}],
        }}},
    )  # fmt: skip
    text = model_card.card(data)
    assert "ANLS* of whole answers 0.185 (0.167 to 0.202); 96.0% of the answers are JSON" in text
    assert text.index("| brand | 40 |") < text.index("| size | 40 | 40.0% | 25.0% | 31.0% (21.0% to 43.0%) | 19 | 11 |")
    assert "Of 56 values that it gave, 22 are wrong (39.3%), 8 were invented" in text
    assert "known to have none (8.9% of 90 such fields)" in text
    assert "(21.0% to 43.0%) | 19 | 11 | 4 of 25 |" in text
    assert "and 6 cannot be checked" in text
    assert "**Not shown to be read from the image:** size. For this field" in text
    assert "| brand | 88 | 13.9% | 0.625 | 40.0% | 7.0% |" in text
    assert "Describe the product in this image as JSON." in text
    (anls,) = [one for one in ModelCard(text).data.eval_results if one.metric_type == "anls"]
    assert anls.metric_value == 0.185
    scores["fields"] = [{**one, "n_absent": 0} for one in scores["fields"]]
    assert "inventions could not be counted" in model_card.card(data)
    assert "Not scored: `python src/score_products.py`" in model_card.card(
        dataclasses.replace(data, stages={"finetune": data.stages["finetune"]})
    )


def test_card_names_the_hints_of_the_training():
    hinted = model_card.card(data_of("m", hint_kind="text", recipe_settings={"hint_dropout": 0.3}))
    assert "holds the text that OCR read on the pack" in hinted
    assert "30 % of the training prompts had none" in hinted
    assert all("hints" not in model_card.card(data_of("m", **more)) for more in ({}, {"hint_kind": "none"}))

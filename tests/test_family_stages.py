"""The stages with a tiny model of another family: hints, explanation, exports, structured answers, quantisation."""

import dataclasses
import json
import math

import pytest
import torch
from transformers import AutoModelForImageTextToText, pipeline

import explain
import export
import finetune
import predict
from skincare import stage
from skincare.dataset.chat import read_dataset
from skincare.inference import predictions, structured_decoder
from skincare.inference.classifier import Classifier
from skincare.inference.image_predictor import PredictorSettings
from skincare.labels import skincare_labels
from skincare.paths import Layout
from skincare.product.json_answers import parse_product
from skincare.serving.predictor import LocalPredictorLoader
from skincare.serving.worker import Job
from skincare.training import run_spec, training_run
from tests.dataset_helpers import write_dataset_files
from tests.family_models import MODEL_TYPES
from tests.launched_runs import leave_out_slow_parts
from tests.structured_examples import LABELS, write_structured_dataset
from tests.test_exported_model import dialogue
from tests.test_family_runs import OTHERS
from tests.test_hints import hinted_dataset

SIZES = {"train": 6, "val": 2, "test": 3}


@pytest.fixture(autouse=True, scope="module")
def small_runs():
    with pytest.MonkeyPatch.context() as patch:
        leave_out_slow_parts(patch)
        yield


def config(layout, folder, recipe="sample", **changes):
    return finetune.Config(root=layout.root, model=str(folder), recipe=recipe, run="r", min_tokens=20, max_tokens=30,
                           max_epochs=1, micro_batch_size=4, **changes)  # fmt: skip


@pytest.fixture(scope="module", params=OTHERS)
def trained(request, folders, tmp_path_factory):
    """A finished run with hints, and its family."""
    layout = Layout(tmp_path_factory.mktemp(request.param))
    hinted_dataset(layout, SIZES)
    assert stage.execute("finetune", config(layout, folders[request.param]), layout, finetune.run) == 0
    return layout, request.param


def exported(layout, **options):
    settings = export.Config(root=layout.root, run="r", output=layout.root / "exported", overwrite=True, **options)
    export.run(settings, layout)
    return layout.root / "exported"


def test_images_of_a_run_are_explained(trained):
    layout, _ = trained
    assert stage.execute("explain", explain.Config(root=layout.root), layout, explain.run) == 0
    results = json.loads(layout.summary("explain").read_text())["results"]
    shown = {one["image_id"]: one["contrast"] for one in results["images"]}
    assert len(shown) == SIZES["test"]
    assert all(layout.overlay(image).is_file() for image in shown)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"evaluate": False}, {"drop_layers": 1}], ids=["merged", "pruned"])
def test_an_export_gives_equal_answers_in_transformers_pipeline(trained, options):
    layout, model_type = trained
    folder = exported(layout, dtype="float32", **options)
    record = json.loads((folder / "export.json").read_text())
    assert (record["model_type"], record["n_layers"]) == (model_type, 4 - options.get("drop_layers", 0))
    assert f"- {model_type}\n" in (folder / "README.md").read_text()
    files = [str(layout.root / one.image) for one in read_dataset(layout, "test")]
    classifier = Classifier.load(folder, skincare_labels(), layout.root)
    grids, features = classifier.features.get(files)
    expected = [one.text for one in classifier.decoder("generate")(grids, features)]
    found = pipeline("image-text-to-text", model=str(folder))(
        text=[dialogue(file) for file in files], return_full_text=False
    )
    assert [one[0]["generated_text"] for one in found] == expected


@pytest.mark.slow
@pytest.mark.parametrize(("quantize", "dtype"), [("8bit", torch.int8), ("4bit", torch.uint8)])
def test_a_quantised_export_keeps_the_vision_tower(trained, quantize, dtype):
    pytest.importorskip("bitsandbytes")
    layout, _ = trained
    model = AutoModelForImageTextToText.from_pretrained(exported(layout, quantize=quantize, evaluate=False))
    assert {layer.mlp.up_proj.weight.dtype for layer in model.model.language_model.layers} == {dtype}
    before = AutoModelForImageTextToText.from_pretrained(layout.finetuned_model("r")).model.visual.state_dict()
    for name, tensor in model.model.visual.state_dict().items():
        torch.testing.assert_close(tensor, before[name].bfloat16(), rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("decoder", ["generate", "rank"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_predict_and_serve_answer_as_the_classifier(folders, tmp_path, model_type, decoder):
    layout = Layout(tmp_path)
    write_dataset_files(layout, {"train": 1, "val": 1, "test": 3})
    examples, folder = read_dataset(layout, "test"), str(folders[model_type])
    classifier = Classifier.load(folder, skincare_labels(), layout.root)
    expected = {
        str(layout.root / one.file): one for one in classifier.predict(examples, "test", classifier.decoder(decoder))
    }
    options = {"by": "model", "model": folder, "decoder": decoder}
    out = tmp_path / "answers.jsonl"
    predict.run(predict.Config(root=layout.root, images=tuple(expected), out=out, **options), layout)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    served = LocalPredictorLoader(PredictorSettings(**options), layout, 10**8)().predict(
        [Job((layout.root / file).read_bytes(), file) for file in expected]
    )
    for row, answer, (file, one) in zip(rows, served, expected.items(), strict=True):
        assert row["file"] == answer.file == file
        assert row["answer"] == answer.answer == one.text
        assert row["category"] == answer.category == (one.category or row["category"])
        if decoder == "rank":
            probability = max(map(math.exp, one.log_probabilities))
            assert row["probability"] == pytest.approx(probability, abs=1e-3)
            assert answer.probability == pytest.approx(probability, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", OTHERS)
def test_structured_answers_are_trained_and_decoded_under_their_schema(folders, tmp_path, monkeypatch, model_type):
    pytest.importorskip("llguidance")
    monkeypatch.setattr(structured_decoder, "MAX_ANSWER_TOKENS", 200)
    layout = Layout(tmp_path)
    write_structured_dataset(layout, SIZES)
    finetune.run(config(layout, folders[model_type]), layout)
    found = predictions.read_jsonl(layout.finetune_log("r") / "test_predictions.jsonl", skincare_labels())
    assert {one.target for one in found} == {"product"}
    classifier = Classifier.load(layout.finetuned_model("r"), LABELS, layout.root)
    texts = [one.text for one in classifier.predict(read_dataset(layout, "test"), "test",
                                                    classifier.decoder("constrained"))]  # fmt: skip
    for text in texts:
        # A random model fills strings to the limit; what it has written so far follows the schema.
        assert text.startswith('{"')
        assert parse_product(text).product is not None


@pytest.mark.parametrize("model_type", OTHERS)
@pytest.mark.parametrize("recipe", ["sample-qlora4", "sample-qlora8", "sample-adamw8bit", "sample-head"])
def test_a_step_changes_what_the_recipe_trains_and_nothing_else(folders, tmp_path, model_type, recipe):
    if recipe != "sample-head":
        pytest.importorskip("bitsandbytes")
    layout = Layout(tmp_path)
    hinted_dataset(layout, SIZES)
    settings = config(layout, folders[model_type], recipe)
    spec = run_spec.make_spec(settings, recipe, 0, run_spec.read_data(settings, layout))
    spec = dataclasses.replace(spec, recipe=dataclasses.replace(spec.recipe, weight_decay=0.0))
    trainer = training_run.prepare(spec, layout, "r")
    model = trainer.classifier.network.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    # The matrices A of LoRA have no gradient in the first step, in which B is zero.
    for _ in range(2):
        trainer._step(trainer.train[:4])
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    trained = {name for name in trainer.parameters if not name.startswith("classification_head.")}
    # The gradient of a key projection's bias is zero but for rounding.
    assert {name for name in trained if not name.endswith("k_proj.bias")} <= changed <= trained
    if "qlora" in recipe:
        assert trained == {name for name in before if ".lora_" in name}
        assert len(trained) == 2 * 7 * 4, "two matrices for seven projections of four layers"

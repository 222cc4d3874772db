"""An export predicts as the training run's model, records its loss of accuracy, and replaces nothing by mistake."""

import dataclasses
import json
import re
import shutil
import stat

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

import export
from skincare import stage
from skincare.dataset.chat import read_dataset
from skincare.errors import MissingInputError, StageError
from skincare.evaluation import fusion, product_fusion
from skincare.evaluation.product_metrics import ScoredProduct, compare_documents
from skincare.exporting import checkpoints, evaluation, export_job, hub, source_run
from skincare.exporting.labels_toml import write_labels
from skincare.files import write_json
from skincare.inference.classifier import Classifier
from skincare.labels import labels_of_model, read_labels, skincare_labels
from skincare.modeling.loading import load_model, load_processor
from skincare.paths import TINY_MODEL, Layout
from skincare.product.schema import FIELDS, Product
from skincare.prompts import labels_for
from skincare.runs.content import sha256_of
from skincare.text_reading import pack_products
from skincare.text_reading.product_reader import ProductReader
from skincare.text_reading.reader import Reader
from skincare.training.model_export import write_model
from tests.dataset_helpers import write_dataset_files
from tests.helpers import prediction

LABELS = skincare_labels()


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    """A root with val images and a finished run `r`, which is the embedded model."""
    layout = Layout(tmp_path_factory.mktemp("export"))
    write_dataset_files(layout, {"train": 1, "val": 14, "test": 1})
    write_run(layout)
    return layout


def write_run(layout):
    folder = layout.finetuned_model("r")
    folder.mkdir(parents=True)
    write_model(folder, load_model(TINY_MODEL, torch.device("cpu")), None, load_processor(TINY_MODEL), LABELS)
    write_json(layout.finetune_log("r") / "manifest.json", {"config": {"model": "/home/me/base", "recipe": "sample"}})
    scores = {"accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6, "n": 20, "n_products": 7}
    write_json(layout.finetune_log("r") / "test_metrics.json", scores)
    write_json(layout.summary("finetune"), {"results": {"run": "r"}})


def run(layout, **options):
    return export.run(export.Config(root=layout.root, **options), layout)


@pytest.fixture(scope="module")
def exported(layout):
    """The folder of the merged bf16 export."""
    run(layout)
    return layout.exported_model("r-bf16")


@pytest.fixture
def small(tmp_path):
    """A root of its own with a run, for tests that change it."""
    layout = Layout(tmp_path)
    write_run(layout)
    return layout


def dialogue(layout, example):
    content = [{"type": "image", "path": str(layout.root / example.image)}, {"type": "text", "text": LABELS.question}]
    return [{"role": "user", "content": content}]


def test_pipeline_and_predict_give_the_same_text(layout, exported):
    examples = read_dataset(layout, "val")
    classifier = Classifier.load(exported, LABELS, layout.root)
    expected = {one.image_id: one.text for one in classifier.predict(examples, "val", classifier.decoder("generate"))}
    generate = pipeline("image-text-to-text", model=str(exported), batch_size=7)
    found = generate(text=[dialogue(layout, one) for one in examples], return_full_text=False)
    assert {one.image_id: row[0]["generated_text"] for one, row in zip(examples, found, strict=True)} == expected


def test_plain_transformers_gives_the_label_scores_of_predict(layout, exported):
    example = read_dataset(layout, "val")[0]
    classifier = Classifier.load(exported, LABELS, layout.root, dtype="float32")
    expected = torch.tensor(classifier.predict([example], "val", classifier.decoder("rank"))[0].log_probabilities)
    # In float32, since bfloat16 rounds each of the two passes in its own way.
    model = AutoModelForImageTextToText.from_pretrained(exported, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(exported)
    scores = []
    for name in LABELS.names:
        answer = {"role": "assistant", "content": [{"type": "text", "text": name}]}
        inputs = processor.apply_chat_template(
            [*dialogue(layout, example), answer], tokenize=True, return_dict=True, return_tensors="pt"
        )
        ids = inputs["input_ids"][0].tolist()
        end = len(ids) - 1 - ids[::-1].index(505)  # <|im_end|>, after which the template writes a line end
        start = end - len(processor.tokenizer.encode(name, add_special_tokens=False))
        with torch.no_grad():
            logits = model(**inputs).logits[0, start - 1 : end].float().log_softmax(dim=-1)
        scores.append(logits[range(end + 1 - start), ids[start : end + 1]].sum())
    torch.testing.assert_close(torch.stack(scores).log_softmax(dim=0), expected, atol=1e-3, rtol=0)


def test_every_file_is_hashed_and_readable_and_none_holds_a_path_of_this_machine(layout, exported):
    record = json.loads((exported / "export.json").read_text())
    present = {path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()}
    assert set(record["files"]) == present - {"export.json"}
    assert {name: one["sha256"] for name, one in record["files"].items()} == {
        name: sha256_of(exported / name) for name in record["files"]
    }
    assert json.loads(layout.export_record("r-bf16").read_text()) == record
    assert (exported / "model.safetensors").stat().st_mode & stat.S_IROTH
    for name in present - {"model.safetensors"}:
        text = (exported / name).read_bytes()
        assert str(layout.root).encode() not in text, name
        assert b"/home/me" not in text, name


def test_the_card_states_sizes_and_the_verdict(exported):
    card = (exported / "README.md").read_text()
    assert "**No significant change of accuracy: +0.0 (+0.0 to +0.0) points on 14 val images of 14 products" in card
    assert "| training run | 7.7 MB |" in card
    assert "| this export | 3.9 MB |" in card
    assert "of 20 test images of 7" in card
    assert "vllm serve" in card
    assert card.startswith("---\n")


def test_labels_toml_of_the_export_holds_the_same_labels(exported):
    assert read_labels(exported / "labels.toml") == LABELS == labels_of_model(exported, LABELS)


def test_labels_with_quotes_aliases_and_families_survive_the_round_trip(tmp_path):
    source = tmp_path / "own.toml"
    source.write_text(
        'domain = "kitchen"\nnameless = ["kettle corn"]\n[parents]\n"Hot \\\\ drinks" = ["Mug \'a\'", "Kettle"]\n'
        '[[labels]]\nname = "Mug \'a\'"\naliases = {en = ["cup"], ru = ["чашка", "кружка"]}\nn_unnamed = 3\n'
        '[[labels]]\nname = "Kettle"\nis_dominant = true\n'
    )
    labels = read_labels(source)
    write_labels(tmp_path, labels)
    assert read_labels(tmp_path / "labels.toml") == labels


def test_thresholds_have_the_form_that_predict_reads(exported):
    found = json.loads((exported / "confidence.json").read_text())
    assert found["n_val"] == 14
    assert found["decoder"] == "rank"
    assert found["temperature"] > 0
    assert [one["wanted_risk"] for one in found["wanted"]] == [0.05, 0.1, 0.2, 0.3]


@pytest.mark.slow
@pytest.mark.parametrize(("quantise", "most_mb"), [("8bit", 3.4), ("4bit", 3.1)])
def test_a_quantised_export_loads_in_transformers_and_predicts(layout, quantise, most_mb):
    pytest.importorskip("bitsandbytes")
    run(layout, quantize=quantise, max_val_images=4)
    folder = layout.exported_model(f"r-{quantise}")
    assert (folder / "model.safetensors").stat().st_size < most_mb * 1e6
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert model.config.quantization_config.quant_method == "bitsandbytes"
    assert model.model.visual.blocks[0].mlp.fc1.weight.dtype == torch.bfloat16
    record = json.loads((folder / "export.json").read_text())
    assert record["evaluation"]["comparison"]["n"] == 4
    assert record["evaluation"]["export"]["weight_bytes"] < record["evaluation"]["run"]["weight_bytes"] / 2
    # A model of random weights would agree with the run on one label in fourteen.
    examples = read_dataset(layout, "val")
    scores = []
    for source in (layout.finetuned_model("r"), folder):
        classifier = Classifier.load(source, LABELS, layout.root)
        scores.append(classifier.predict(examples[:1], "val", classifier.decoder("rank"))[0].log_probabilities)
    assert torch.corrcoef(torch.tensor(scores))[0, 1] > 0.9
    expected = {one.image_id: one.text for one in classifier.predict(examples, "val", classifier.decoder("generate"))}
    found = pipeline("image-text-to-text", model=str(folder), batch_size=7)(
        text=[dialogue(layout, one) for one in examples], return_full_text=False
    )
    assert {one.image_id: row[0]["generated_text"] for one, row in zip(examples, found, strict=True)} == expected


def test_dropped_layers_are_recorded_for_each_number_of_them(layout):
    run(layout, drop_layers=2, max_val_images=6)
    folder = layout.exported_model("r-drop2-bf16")
    found = json.loads((folder / "export.json").read_text())
    rows = found["pruning"]["rows"]
    assert [row["n_dropped"] for row in rows] == [0, 1, 2]
    assert rows[0]["n_parameters"] > rows[1]["n_parameters"] > rows[2]["n_parameters"] == found["n_parameters"]
    assert found["dropped_layers"] == sorted(found["pruning"]["order"]) == rows[2]["dropped"]
    assert found["n_layers"] == 2
    assert (rows[0]["difference"], rows[0]["difference_low"], rows[0]["difference_high"]) == (0, 0, 0)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert len(model.model.language_model.layers) == len(model.config.text_config.layer_types) == 2
    assert layout.plot("pruning_r-drop2-bf16").is_file()
    assert "| none | 1,929,728 |" in (folder / "README.md").read_text()


def test_an_export_without_evaluation_is_marked_as_such(small):
    run(small, evaluate=False)
    folder = small.exported_model("r-bf16")
    assert "nothing is known about the accuracy" in (folder / "README.md").read_text()
    assert not (folder / "confidence.json").exists()


def test_a_missing_val_names_both_ways_out(small):
    with pytest.raises(MissingInputError, match=r"build_dataset\.py.*--no-evaluate"):
        run(small)


def test_a_val_of_other_labels_is_an_error(small):
    write_dataset_files(small, {"train": 1, "val": 2, "test": 1})
    path = small.finetuned_model("r") / "labels.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"question": "Which one?"}))
    with pytest.raises(StageError, match="--labels"):
        run(small)


def test_a_model_that_cannot_rank_labels_is_exported_without_thresholds(layout, monkeypatch):
    monkeypatch.setattr(evaluation, "_ranked", lambda *_: [])
    run(layout, output=layout.root / "structured", max_val_images=2)
    assert not (layout.root / "structured" / "confidence.json").exists()


def test_the_fusion_of_products_and_its_reader_are_copied(tmp_path):
    labels = labels_for("product", skincare_labels())
    source = source_run.SourceRun("r", tmp_path / "run", labels, "", "", {})
    fitted = dict.fromkeys(FIELDS, product_fusion.FieldFusion(threshold=0.25))
    product_fusion.write(source.folder, fitted, ocr="fake")
    packs = pack_products.PackProducts(Reader(skincare_labels()), ProductReader(("Noor",), frozenset(["cream"])))
    packs.save(source.folder / fusion.READER_FOLDER)
    checkpoints._copy_companions(source, tmp_path / "export")
    assert product_fusion.read(tmp_path / "export") == product_fusion.read(source.folder)
    copy = tmp_path / "export" / fusion.READER_FOLDER
    rules = pack_products.load(copy, labels_of_model(copy, labels)).rules
    assert (rules.brands, rules.common_words) == (("Noor",), {"cream"})
    assert str(tmp_path) not in (copy / "labels.json").read_text()


def test_an_existing_export_is_kept_without_overwrite_and_replaced_with_it(small):
    run(small, evaluate=False)
    folder = small.exported_model("r-bf16")
    (folder / "marker").touch()
    with pytest.raises(StageError, match="--overwrite"):
        run(small, evaluate=False)
    assert (folder / "marker").is_file()
    run(small, evaluate=False, overwrite=True)
    assert not (folder / "marker").exists()


def test_overwrite_never_replaces_another_folder_or_the_run(small):
    other = small.root / "photos"
    other.mkdir()
    with pytest.raises(StageError, match="only a folder that this stage has written"):
        run(small, evaluate=False, overwrite=True, output=other)
    for place in (small.finetuned_model("r"), small.root, small.finetuned_model("r") / "export"):
        with pytest.raises(StageError, match="the run itself lies there"):
            run(small, evaluate=False, overwrite=True, output=place)
    assert other.is_dir()


def test_an_interrupted_export_leaves_nothing_and_keeps_the_old_one(small, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(export_job.card, "card", interrupt)
    config = export.Config(root=small.root, evaluate=False)
    assert stage.execute("export", config, small, export.run) == 130
    assert list(small.exported_model("").iterdir()) == []
    monkeypatch.undo()
    run(small, evaluate=False)
    monkeypatch.setattr(export_job.card, "card", interrupt)
    config = dataclasses.replace(config, overwrite=True)
    assert stage.execute("export", config, small, export.run) == 130
    assert [path.name for path in small.exported_model("").iterdir()] == ["r-bf16"]
    assert (small.exported_model("r-bf16") / "export.json").is_file()


def test_pickled_weights_are_refused(small):
    (small.finetuned_model("r") / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(StageError, match=r"pytorch_model\.bin is a pickled file"):
        run(small, evaluate=False)


def test_a_checkpoint_with_code_of_its_own_is_refused(small):
    path = small.finetuned_model("r") / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(StageError, match="auto_map"):
        run(small, evaluate=False)


@pytest.mark.parametrize("place", ["index", "link"])
def test_weights_outside_of_the_run_are_refused(small, place, tmp_path_factory):
    folder, outside = small.finetuned_model("r"), tmp_path_factory.mktemp("outside") / "model.safetensors"
    shutil.move(folder / "model.safetensors", outside)
    if place == "link":
        (folder / "model.safetensors").symlink_to(outside)
    else:
        write_json(folder / "model.safetensors.index.json", {"weight_map": {"lm_head.weight": str(outside)}})
    with pytest.raises(StageError, match="lies outside"):
        run(small, evaluate=False)


@pytest.mark.parametrize("name", ["../r", "a/b", ".hidden", "r\n"])
def test_a_run_is_a_name_and_no_path(small, name):
    with pytest.raises(StageError, match="a run's name"):
        source_run.find_run(small, name)


def test_a_run_that_is_absent_or_interrupted_is_an_error(small):
    with pytest.raises(MissingInputError):
        source_run.find_run(small, "other")
    small.training_state("r").mkdir()
    (small.finetune_log("r") / "test_metrics.json").unlink()
    with pytest.raises(StageError, match="--resume"):
        source_run.find_run(small)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop_layers": 4}, "of its 4 language layers, the model needs 1"),
        ({"drop_layers": -1}, "negative"),
        ({"drop_layers": 1, "evaluate": False}, "chooses the layers on val"),
        ({"quantize": "4bit", "dtype": "float32"}, "leave --dtype out"),
        ({"batch_size": 0}, "below 1"),
        ({"push_to_hub": "no-owner"}, "OWNER/NAME"),
    ],
)
def test_options_that_cannot_work_are_errors_before_anything_is_written(layout, options, message):
    with pytest.raises(StageError, match=message):
        run(layout, output=layout.root / "never", **options)
    assert not (layout.root / "never").exists()


def evaluations(n_wrong):
    """Evaluations of two models on 60 products: all right, and `n_wrong` wrong."""
    before = [prediction(f"{i}_1", "Toner", "Toner") for i in range(60)]
    after = [prediction(f"{i}_1", "Toner", "Mist" if i < n_wrong else "Toner") for i in range(60)]
    return tuple(evaluation.Evaluation(rows, rows, 1.0, 1) for rows in (before, after))


def test_a_loss_beyond_the_interval_is_stated_plainly():
    found = evaluation.compare(*evaluations(12))
    assert found["verdict"] == "worse"
    assert found["n_other_answers"] == 12
    assert evaluation.describe(found).startswith("LOWER ACCURACY than the training run: -20.0 (")
    assert evaluation.compare(*evaluations(12)[::-1])["verdict"] == "better"
    assert evaluation.compare(*evaluations(1))["verdict"] == "no significant difference"


def test_structured_answers_are_compared_by_the_whole_answer():
    """The categories stay right; the sizes of 20 products are lost."""
    truth = Product(category="Toner", size="50 ml")
    of_run, of_export = (
        [ScoredProduct(f"{i}_1", str(i), truth, Product(category="Toner") if i < n_lost else truth, "valid")
         for i in range(60)]
        for n_lost in (0, 20)
    )  # fmt: skip
    before, after = evaluations(0)
    found = evaluation.compare(before, after, compare_documents(of_run, of_export))
    assert (found["difference"], found["verdict"]) == (0.0, "worse")
    assert re.match(
        r"LOWER SCORE than the training run: -1\d\.\d \(.*ANLS\* of whole answers", evaluation.describe(found)
    )
    assert evaluation.compare(before, after, compare_documents(of_export, of_run))["verdict"] == "better"
    equal = evaluation.compare(before, after, compare_documents(of_run, of_run))
    assert evaluation.describe(equal).startswith("no significant change: +0.0")


def test_a_part_of_val_consists_of_whole_products(layout):
    examples = [dataclasses.replace(one, product_id=str(i // 3)) for i, one in enumerate(read_dataset(layout, "val"))]
    drawn = export._drawn(examples, 4)
    assert len(drawn) in (5, 6)
    assert all(sum(one.product_id == product for one in drawn) == sum(one.product_id == product for one in examples)
               for product in {one.product_id for one in drawn})  # fmt: skip
    assert export._drawn(examples, 0) == export._drawn(examples, 99) == examples


class StubHub:
    """Stands for HfApi; records its calls."""

    def __init__(self, token):
        self.calls = [("token", token)]
        type(self).last = self

    def create_repo(self, repository, **options):
        self.calls.append(("create", repository, options))
        return f"https://hub.example/{repository}"

    def upload_folder(self, **options):
        self.calls.append(("upload", options))
        if options["repo_id"] == "me/refused":
            raise OSError("no access with hf_secret")


def test_only_the_exported_files_are_uploaded_to_a_private_repository(small, monkeypatch, caplog):
    monkeypatch.setattr(hub, "HfApi", StubHub)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    summary = run(small, evaluate=False, push_to_hub="me/model")
    token, create, (_, upload) = StubHub.last.calls
    assert token == ("token", "hf_secret")
    assert create == ("create", "me/model", {"private": True, "exist_ok": True})
    folder = small.exported_model("r-bf16")
    assert upload["folder_path"] == folder
    assert set(upload["allow_patterns"]) == {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert summary.results["hub"] == "https://hub.example/me/model"
    with pytest.raises(StageError, match="is complete") as failed:
        run(small, evaluate=False, push_to_hub="me/refused", overwrite=True)
    assert "hf_secret" not in caplog.text + str(failed.value) + (folder / "export.json").read_text()


def test_without_a_token_nothing_is_written(small, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(MissingInputError, match="HF_TOKEN"):
        run(small, evaluate=False, push_to_hub="me/model")
    assert not small.exported_model("").exists()

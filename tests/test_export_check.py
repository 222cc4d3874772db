"""The export of a bf16 checkpoint holds the trained weights exactly, and is evaluated on val."""

import json
import shutil
import warnings

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

import finetune
from skincare.paths import TINY_MODEL, Layout
from skincare.tables import HISTORY
from skincare.training import checkpoints, training_run
from tests.dataset_helpers import write_dataset_files
from tests.plots import replace_training_plots

pytestmark = pytest.mark.slow


@pytest.fixture
def layout(tmp_path, monkeypatch):
    replace_training_plots(monkeypatch)
    found = Layout(tmp_path)
    write_dataset_files(found, {"train": 8, "val": 8, "test": 4})
    base = shutil.copytree(TINY_MODEL, found.root / "base")
    weights = load_file(base / "model.safetensors")
    save_file({n: w.bfloat16() for n, w in weights.items()}, base / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    return found


def run(layout, recipe, **changes):
    settings = {"model": str(layout.root / "base"), "recipe": recipe, "run": "r", "min_tokens": 36, "max_tokens": 36,
                "max_epochs": 1, "micro_batch_size": 8}  # fmt: skip
    return finetune.run(finetune.Config(root=layout.root, **{**settings, **changes}), layout).results.get("export")


def loaded(folder, **settings):
    return AutoModelForImageTextToText.from_pretrained(folder, **settings)


def best(layout):
    return dict(checkpoints.trained_tensors(checkpoints.latest_state(layout.training_state("r"), "best")))


def test_updates_below_bf16_resolution_are_exported(layout):
    found = run(layout, "reference", learning_rate=2e-5, max_epochs=2)
    folder, trained = layout.finetuned_model("r"), best(layout)
    parameters = dict(loaded(folder).named_parameters())
    for name, tensor in trained.items():
        assert torch.equal(parameters[name], tensor), name
    assert found["is_fp32"]
    assert found["checkpoint_dtype"] == "bfloat16"
    assert found["n_weights"] == sum(map(torch.numel, trained.values()))
    # What a bf16 file would hold of it; nearly every weight has moved.
    assert found["n_changed_rounded"] < 0.6 * found["n_weights"] < 0.9 * found["n_weights"] < found["n_changed"]
    stored = load_file(folder / "model.safetensors")
    assert stored["model.layers.3.mlp.up_proj.weight"].dtype == torch.float32
    frozen = [one for name, one in stored.items() if name.startswith("model.layers.0.")]
    assert {one.dtype for one in frozen} == {torch.bfloat16}


def test_the_plan_counts_the_disk_space_of_cache_checkpoints_and_model(layout):
    run(layout, "sample", plan=True)
    planned = json.loads(layout.finetune_plan.read_text())
    run(layout, "sample", max_epochs=2)
    assert planned["n_cached_images"] == len(list(layout.vision_cache.rglob("*.safetensors")))
    # 16 of the training, and 12 of val and test in fp32.
    assert planned["cache_bytes"] == (16 + 2 * 12) * planned["cache_bytes_per_image"]
    model = layout.finetuned_model("r")
    assert 0.95 < (model / "model.safetensors").stat().st_size / planned["model_bytes"] < 1.01
    kept = [path.stat().st_size for path in layout.training_state("r").rglob("*.safetensors")]
    assert 1.4 < planned["checkpoint_bytes"] / sum(kept) < 1.51, "two of at most three checkpoints"


def test_val_is_evaluated_on_the_export_and_on_its_rounded_weights(layout):
    found = run(layout, "sample", max_epochs=2)
    assert json.loads((layout.finetune_log("r") / "export.json").read_text()) == found
    rows = found["val"]
    assert list(rows) == ["in training", "exported", "rounded"]
    losses = [row.val_loss for row in HISTORY.read(layout.finetune_log("r") / "history.csv")]
    assert rows["in training"]["loss"] in losses
    for row in rows.values():
        # The loss before training is 12.9; these differ by rounding only.
        assert row["loss"] == pytest.approx(rows["in training"]["loss"], abs=0.02)
    assert len({row["loss"] for row in rows.values()}) == 3


def test_an_export_without_the_trained_weights_shows_in_its_loss(layout, monkeypatch):
    monkeypatch.setattr(training_run, "copy_full_tensor", lambda *_: None)
    rows = run(layout, "sample", max_epochs=4)["val"]
    assert rows["exported"]["loss"] > rows["in training"]["loss"] + 1
    assert rows["exported"]["n_other_answers"] > 0


def test_an_untrained_model_is_exported_unchanged(layout):
    found = run(layout, "sample-probe")
    assert (found["is_fp32"], found["n_weights"], list(found["val"])) == (False, 0, ["in training", "exported"])
    assert {one.dtype for one in loaded(layout.finetuned_model("r")).parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("recipe", ["tuned-lora", "tuned-lora-parts"])
def test_lora_is_merged_without_rounding_and_saved_for_peft(layout, recipe):
    found = run(layout, recipe, learning_rate=1e-4, max_epochs=3)
    folder = layout.finetuned_model("r")
    assert found["n_changed_rounded"] < 0.9 * found["n_changed"]
    merged = loaded(folder)
    if recipe == "tuned-lora":
        name, trained = "model.language_model.layers.1.mlp.up_proj", best(layout)
        change = 2 * trained[f"{name}.lora_B.default.weight"] @ trained[f"{name}.lora_A.default.weight"]
        before = loaded(layout.root / "base").get_parameter(f"{name}.weight").float()
        torch.testing.assert_close(merged.get_parameter(f"{name}.weight"), before + change, rtol=0, atol=1e-8)
    base = loaded(layout.root / "base", dtype=torch.float32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        put_on = PeftModel.from_pretrained(base, folder / "adapter").merge_and_unload()
    assert not [one for one in caught if "missing" in str(one.message)], "peft initialises no matrices itself"
    expected = merged.state_dict()
    for name, tensor in put_on.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-7)

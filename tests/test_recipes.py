"""Each recipe makes the change in its name, and no other."""

import dataclasses
import hashlib
import math
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file

import finetune
from skincare.errors import StageError
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.loading import load_model
from skincare.modeling.settings import Trainable
from skincare.modeling.vision_features import VisionFeatures
from skincare.paths import TINY_MODEL, Layout
from skincare.training import adapters, checkpoints
from skincare.training.distributed import copy_full_tensor
from skincare.training.loop import Trainer
from skincare.training.recipes import RECIPES, Adapter, get_recipe
from tests.dataset_helpers import write_dataset_files
from tests.plots import replace_training_plots

VARIATIONS = sorted(name.removeprefix("sample-") for name in RECIPES if name.startswith("sample-"))
# Tests below train these, and check more of them.
TRAINED_BELOW = {"all", "geometric", "k2", "language", "lora", "lora-parts", "merger", "parts", "probe", "quarter"}
# What a base recipe has already.
UNCHANGED = {"reference-quarter", "sample-full", "tuned-full", "tuned-nodecay", "tuned-warmup"}
# Not available on every platform.
NEED_BITSANDBYTES = {"adamw8bit", "qlora4", "qlora8"}


def layout_in(folder):
    found = Layout(folder)
    write_dataset_files(found, {"train": 16, "val": 4, "test": 4})
    return found


@pytest.fixture
def layout(tmp_path):
    return layout_in(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A dataset whose vision features all runs share."""
    return layout_in(tmp_path_factory.mktemp("shared"))


def test_the_default_recipe_is_the_reference_experiment():
    reference = RECIPES["reference"]
    assert reference.trainable == Trainable(1, True, 1)
    assert (reference.learning_rate, reference.weight_decay, reference.max_grad_norm) == (5e-7, 0.01, 0.5)
    assert (reference.schedule, reference.effective_batch_size, reference.max_epochs) == ("cosine_restarts", 4, 20)
    assert (reference.imbalance, reference.augmentation, reference.optimizer) == ("none", "none", "adamw")
    assert (reference.data_share, reference.label_smoothing, reference.average_decay) == (0.25, 0.0, 0.0)


def test_the_best_recipe_has_the_learning_rates_of_its_published_neighbours():
    best = RECIPES["best"]
    rates = {part: best.learning_rate * scale for part, scale in best.rate_by_part.items()}
    assert rates == pytest.approx({"vision": 6e-6, "merger": 2e-5, "lora": 1e-4, "head": 1e-4})
    assert (best.head, best.adapter, best.effective_batch_size) == ("joint", Adapter(rank=16, alpha=32), 16)
    assert best.data_share == 1.0


@pytest.mark.parametrize("variation", VARIATIONS)
def test_a_variation_changes_at_most_three_fields_and_extends_the_description(variation):
    for base in ("reference", "tuned", "sample"):
        one, other = dataclasses.asdict(RECIPES[base]), dataclasses.asdict(RECIPES[f"{base}-{variation}"])
        changed = {key for key in one if one[key] != other[key]} - {"description"}
        assert len(changed) <= 3
        assert bool(changed) == (f"{base}-{variation}" not in UNCHANGED)
        assert other["description"].startswith(one["description"])


def test_an_unknown_recipe_lists_the_available_ones():
    with pytest.raises(StageError, match="sample-k2"):
        get_recipe("sample-k9")


@pytest.fixture
def half_model(tmp_path):
    """The tiny model in float16."""
    model = load_model(TINY_MODEL, torch.device("cpu")).half()
    folder = tmp_path / "half"
    model.save_pretrained(folder)
    for file in TINY_MODEL.iterdir():
        if not (folder / file.name).exists():
            shutil.copy(file, folder)
    return folder


def test_a_float16_checkpoint_trains(layout, monkeypatch, half_model):
    replace_training_plots(monkeypatch)
    settings = finetune.Config(root=layout.root, model=str(half_model), recipe="sample", run="r", min_tokens=36,
                               max_tokens=36, max_epochs=1)  # fmt: skip
    finetune.run(settings, layout)
    # Trained weights are exported in float32, the others in the dtype they were loaded in, never in float16.
    tensors = load_file(layout.finetuned_model("r") / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32, torch.bfloat16}


def trained(layout, monkeypatch, recipe, max_epochs=1, *, released=True):
    """Train a few steps and check the losses; return the Trainer, unless `released` with its optimizer state."""
    if not released:
        monkeypatch.setattr(Trainer, "release", lambda self: None)
    replace_training_plots(monkeypatch)
    seen = []
    original = Trainer.__init__

    def remember(self, *args, **kwargs):
        original(self, *args, **kwargs)
        seen.append(self)

    monkeypatch.setattr(Trainer, "__init__", remember)
    finetune.run(
        finetune.Config(
            root=layout.root, model=str(TINY_MODEL), recipe=recipe, run=recipe, min_tokens=36, max_tokens=36,
            max_epochs=max_epochs, micro_batch_size=8,
        ),
        layout,
    )  # fmt: skip
    losses = [row["val_loss"] for row in seen[0].progress.history]
    assert len(losses) == max_epochs + 1
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[1] != losses[0]
    return seen[0]


@pytest.mark.parametrize("variation", [one for one in VARIATIONS if one not in TRAINED_BELOW])
def test_every_recipe_trains_and_loads(shared, monkeypatch, variation):
    if variation in NEED_BITSANDBYTES:
        pytest.importorskip("bitsandbytes")
    trained(shared, monkeypatch, f"sample-{variation}")


@pytest.mark.parametrize(
    ("variation", "expected"),
    [
        ("merger", {"merger"}),
        ("language", {"language"}),
        ("k2", {"vision", "merger", "language"}),
        ("all", {"vision", "merger", "language"}),
    ],
)
def test_the_trainable_parts_match_the_recipe_name(shared, monkeypatch, variation, expected):
    from skincare.training.optimizers import part_of

    training = trained(shared, monkeypatch, f"sample-{variation}")
    assert {part_of(name) for name in training.parameters} == expected
    blocks = {name.split("blocks.")[1].split(".")[0] for name in training.parameters if "blocks." in name}
    assert blocks == {"k2": {"2", "3"}, "all": {"0", "1", "2", "3"}}.get(variation, set())


def test_only_training_images_are_augmented(layout, monkeypatch):
    trained(layout, monkeypatch, "sample-geometric")
    images = sorted(layout.clean_images.iterdir())
    features = {path.stem for path in layout.vision_cache.rglob("*.safetensors")}
    is_cached = [hashlib.sha256(path.read_bytes()).hexdigest() in features for path in images]
    train, val = is_cached[:16], is_cached[16:20]
    assert all(val)
    # The pre-flight checks compute the first batch without augmentation.
    assert sum(train) <= 8


def test_the_quarter_recipe_takes_a_quarter_of_every_category(shared, monkeypatch):
    training = trained(shared, monkeypatch, "sample-quarter")
    assert len(training.train) == 14  # of 16 in 14 categories, rounded up


def test_learning_rates_follow_the_schedule_and_the_parts(shared, monkeypatch):
    training = trained(shared, monkeypatch, "sample-parts")
    scales = {group["scale"] for group in training.optimizer.param_groups}
    assert scales == {0.1, 1.0}
    assert training.learning_rate(0) == training.recipe.learning_rate
    constant = dataclasses.replace(training.recipe, schedule="constant")
    training.recipe = constant
    assert {training.learning_rate(step) for step in range(40)} == {constant.learning_rate}


@pytest.mark.parametrize("variation", ["lora", "lora-parts"])
def test_lora_is_merged_into_the_exported_weights(shared, monkeypatch, variation):
    """The exported model has the losses of the trained one, without peft."""
    training = trained(shared, monkeypatch, f"sample-{variation}")
    for name, tensor in checkpoints.trained_tensors(training.best_state()):
        copy_full_tensor(tensor, training.parameters[name])
    assert any(".lora_A." in name for name in training.parameters)
    assert (variation == "lora") == all(".lora_" in name for name in training.parameters)
    exported = load_model(shared.finetuned_model(f"sample-{variation}"), torch.device("cpu"))
    assert not any("lora" in name for name, _ in exported.named_parameters())
    batch = training.classifier.encoder.batch([(1, 12, 12)], ["Oil"])
    classifier, network = training.classifier, CachedVLM(exported.requires_grad_(False))
    name = shared.relative(next(shared.clean_images.iterdir()))
    _, features = classifier.features.get([name])
    _, exported_features = VisionFeatures(network, classifier.encoder, shared.root).get([name])
    with torch.no_grad():
        expected, found = classifier.network(batch, features), network(batch, exported_features)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_quantisation_without_bitsandbytes_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(StageError, match="bitsandbytes"):
        adapters.quantisation_config(Adapter(n_bits=8))
    assert adapters.quantisation_config(Adapter()) is None
    assert adapters.quantisation_config(None) is None


@pytest.mark.parametrize(("n_bits", "dtype"), [(8, torch.int8), (4, torch.uint8)])
def test_quantised_weights_are_trained_over_and_never_changed(layout, monkeypatch, n_bits, dtype):
    """Quantised language layers stay frozen, the loss decreases, the export has the original weights plus LoRA."""
    pytest.importorskip("bitsandbytes")
    monkeypatch.setitem(RECIPES, "few", dataclasses.replace(RECIPES[f"sample-qlora{n_bits}"], max_epochs=4))
    seen = {}
    original = Trainer.run

    def run(self, on_epoch):
        model = self.classifier.network.model
        seen["before"] = {name: tensor.clone() for name, tensor in model.state_dict().items() if ".lora_" not in name}
        return original(self, on_epoch)

    monkeypatch.setattr(Trainer, "run", run)
    training = trained(layout, monkeypatch, "few", max_epochs=4)
    model = training.classifier.network.model
    assert all(".lora_" in name for name in training.parameters)
    for layer in model.model.language_model.layers:
        assert layer.mlp.up_proj.base_layer.weight.dtype == layer.self_attn.q_proj.base_layer.weight.dtype == dtype
    assert {p.dtype for p in model.model.visual.parameters()} == {torch.float32}
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in seen["before"].items())
    losses = [row["train_loss"] for row in training.progress.history[1:]]
    assert losses[-1] < 0.9 * losses[0]

    plain = load_model(TINY_MODEL, torch.device("cpu"))
    expected = plain.state_dict()
    found = load_model(layout.finetuned_model("few"), torch.device("cpu")).state_dict()
    changed = {name for name in expected if not torch.equal(expected[name], found[name])}
    assert changed
    assert all("_proj" in name and "language_model" in name for name in changed)
    best = load_file(training.best_state() / "trained.safetensors")
    name = "model.language_model.layers.3.mlp.up_proj"
    change = 2 * best[f"{name}.lora_B.default.weight"] @ best[f"{name}.lora_A.default.weight"]
    torch.testing.assert_close(found[f"{name}.weight"], expected[f"{name}.weight"] + change, rtol=1e-5, atol=1e-6)


def test_8_bit_optimizer_states_are_stored_in_uint8(layout, monkeypatch):
    pytest.importorskip("bitsandbytes")
    training = trained(layout, monkeypatch, "sample-adamw8bit", released=False)
    large = [p for p in training.parameters.values() if p.numel() >= 4096]
    assert large
    for parameter in large:
        assert training.optimizer.state[parameter]["state1"].dtype == torch.uint8
        assert training.optimizer.state[parameter]["state2"].dtype == torch.uint8


def test_a_probe_leaves_the_model_unchanged(shared, monkeypatch):
    training = trained(shared, monkeypatch, "sample-probe")
    assert all(name.startswith("classification_head.") for name in training.parameters)
    before = load_model(TINY_MODEL, torch.device("cpu")).state_dict()
    after = load_model(shared.finetuned_model("sample-probe"), torch.device("cpu")).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (shared.finetuned_model("sample-probe") / "classification_head.safetensors").is_file()
    answers = (shared.finetune_log("sample-probe") / "test_predictions.jsonl").read_text()
    assert '"decoder": "head"' in answers

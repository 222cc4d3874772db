"""DoRA, rsLoRA, Muon and the moving average in whole runs: resuming, export, memory plan, sharding."""

import dataclasses
import json

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from skincare.errors import StageError
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.loading import load_config, load_model
from skincare.modeling.settings import Trainable
from skincare.paths import TINY_MODEL, Layout
from skincare.training import adapters, checkpoints, memory_plan, planning, run_spec, training_run, weight_average
from skincare.training.distributed import ShardedWorld
from skincare.training.recipes import RECIPES, Adapter, Recipe
from skincare.training.run_settings import RunSettings
from skincare.training.stopping import StopRequest
from tests.dataset_helpers import write_dataset_files
from tests.helpers import noise_image
from tests.launched_runs import add_combined_recipe
from tests.plots import replace_training_plots

CPU = torch.device("cpu")
NOTHING = Trainable(0, False, 0)


@pytest.fixture
def layout(tmp_path, monkeypatch):
    replace_training_plots(monkeypatch)
    found = Layout(tmp_path)
    write_dataset_files(found, {"train": 12, "val": 4, "test": 2})
    return found


def make_trainer(layout, run):
    settings = RunSettings(model=str(TINY_MODEL), min_tokens=36, max_tokens=36, micro_batch_size=4)
    spec = run_spec.make_spec(settings, "combined", 0, run_spec.read_data(settings, layout))
    return training_run.prepare(spec, layout, run)


def interrupt():
    raise KeyboardInterrupt


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one_and_exports_its_averages(layout, monkeypatch):
    add_combined_recipe(monkeypatch)
    trainer = make_trainer(layout, "r")
    # Forgets the epoch before training, so that the trained one is selected.
    trainer.run(lambda _: setattr(trainer.progress, "best_accuracy", -1.0))
    stopped = make_trainer(layout, "resumed")
    original = stopped._step
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(stopped, "_step", lambda given: original(given) if stopped.progress.step < 2 else interrupt())
        stopped.run(lambda _: None)
    resumed = make_trainer(layout, "resumed")
    assert resumed.resume()
    assert resumed.progress.step == 2
    resumed.run(lambda _: None)
    last, other = (checkpoints.latest_state(layout.training_state(run), "last") for run in ("r", "resumed"))
    for file in ("trained", "optimizer"):
        tensors, others = (load_file(state / f"{file}.safetensors") for state in (last, other))
        assert tensors.keys() == others.keys()
        assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())
    kinds = {name.rpartition("|")[2] for name in tensors}
    assert kinds == {"average", "momentum_buffer", "exp_avg", "exp_avg_sq", "step"}
    assert any(".lora_magnitude_vector." in name for name in tensors), "DoRA is trained"
    averages = {name.removesuffix("|average"): one for name, one in tensors.items() if name.endswith("|average")}

    # The averages were evaluated, and are exported; the last checkpoint holds the weights.
    assert trainer.progress.best_epoch == 1
    total = trainer.classifier.total_loss("joint", trainer.val)
    with weight_average.applied(trainer.optimizer, trainer.parameters, StopRequest()):
        of_averages = trainer.classifier.total_loss("joint", trainer.val)
    assert trainer.progress.best_loss == of_averages / len(trainer.val) != total / len(trainer.val)
    best = dict(checkpoints.trained_tensors(trainer.best_state()))
    assert best.keys() == averages.keys() == load_file(last / "trained.safetensors").keys()
    assert all(torch.equal(best[name], average) for name, average in averages.items())
    training_run.export(trainer, layout.finetuned_model("r"))
    exported = load_file(layout.finetuned_model("r") / "model.safetensors")
    name = "visual.merger.mlp.0.weight"
    assert torch.equal(exported[name], averages[f"model.{name}"])


def adapted(adapter, dtype=torch.float32):
    """The tiny model with an adapter whose matrices and magnitudes are not at their initial values."""
    model = load_model(TINY_MODEL, CPU).to(dtype)
    model.config.dtype = dtype
    adapters.add_lora(model.requires_grad_(False), adapter, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapters.enable_lora_training(model).items():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.mul_(1 + 0.1 * noise) if "magnitude" in name else parameter.add_(0.05 * noise)
    return model


def loss(model, encoder):
    network, pixels = CachedVLM(model), [encoder.patches(noise_image(168, 168, 0))]
    batch = encoder.batch([one.grid for one in pixels], ["Bath Oil"])
    with torch.no_grad():
        return network(batch, network.vision_features(pixels)).item()


@pytest.mark.parametrize("adapter", [Adapter(use_dora=True), Adapter(rank=4, use_rslora=True)], ids=["dora", "rslora"])
def test_merging_keeps_the_loss_and_peft_loads_the_saved_adapter(tmp_path, tiny_encoder, adapter):
    model = adapted(adapter)
    plain = loss(load_model(TINY_MODEL, CPU), tiny_encoder)
    expected = loss(model, tiny_encoder)
    assert abs(expected - plain) > 0.01
    adapters.save_adapter(tmp_path, adapter, adapters.enable_lora_training(model), {}, str(TINY_MODEL))
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (saved["use_dora"], saved["use_rslora"]) == (adapter.use_dora, adapter.use_rslora)
    adapters.merge_lora(model, lambda *_: None)
    assert not [name for name, _ in model.named_parameters() if "lora" in name]
    assert loss(model, tiny_encoder) == pytest.approx(expected, rel=1e-4)
    by_peft = PeftModel.from_pretrained(load_model(TINY_MODEL, CPU), tmp_path).merge_and_unload()
    for name, tensor in by_peft.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)


def test_matrices_depend_on_the_seed_only_and_every_projection_is_merged():
    state, first = torch.get_rng_state(), []
    for seed in (0, 0, 1):
        model = load_model(TINY_MODEL, CPU)
        adapters.add_lora(model, Adapter(), seed)
        first.append(next(one for name, one in model.named_parameters() if ".lora_A." in name))
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    assert torch.equal(state, torch.get_rng_state())
    merged = []
    adapters.merge_lora(adapted(Adapter()), lambda *pair: merged.append(pair))
    assert len(merged) == 7 * model.config.text_config.num_hidden_layers
    assert not any(torch.equal(before, after) for before, after in merged)


def test_a_fully_trained_module_is_saved_without_matrices(tmp_path):
    model, path = adapted(Adapter()), "model.language_model.layers.3"
    matrices = adapters.enable_lora_training(model)
    adapters.merge_lora(model, lambda *_: None)
    adapters.save_adapter(tmp_path, Adapter(), matrices, {path: model.get_submodule(path)}, "base")
    names = load_file(tmp_path / "adapter_model.safetensors")
    assert any(path in name for name in names)
    assert not any(path in name and "lora_" in name for name in names)
    assert any("layers.2." in name and "lora_A" in name for name in names)


def test_dora_over_bf16_weights_trains_what_is_exported(tiny_encoder):
    """The initial magnitudes change no row by more than fp32 rounding, in training and merged."""
    model = load_model(TINY_MODEL, CPU).to(torch.bfloat16)
    before = {name: one.clone() for name, one in model.named_parameters()}
    adapters.add_lora(model.requires_grad_(False), Adapter(use_dora=True), seed=0)
    assert {one.dtype for one in adapters.enable_lora_training(model).values()} == {torch.float32}
    for module in model.modules():
        if isinstance(module, LoraLayer):
            magnitude = module.lora_magnitude_vector["default"]
            norms = magnitude.get_weight_norm(module.get_base_layer().weight, torch.zeros(1), 1.0)
            torch.testing.assert_close(magnitude.weight / norms, torch.ones_like(norms), rtol=1e-6, atol=0)
    adapters.merge_lora(model, lambda *_: None)
    for name, one in model.named_parameters():
        torch.testing.assert_close(one.float(), before[name].float(), rtol=1e-6, atol=0)


def test_rank_stabilised_lora_is_scaled_by_the_root_of_the_rank():
    for adapter, scale in ((Adapter(), 2.0), (Adapter(use_rslora=True), 8.0), (RECIPES["sample-rslora"].adapter, 4.0)):
        model = load_model(TINY_MODEL, CPU)
        adapters.add_lora(model, adapter, seed=0)
        assert {one.scaling["default"] for one in model.modules() if isinstance(one, LoraLayer)} == {scale}


def planned(recipe: Recipe):
    return memory_plan.plan(
        load_config(TINY_MODEL), recipe.trainable, 150, (1, 12, 12), 8, 16 * memory_plan.GIB, recipe.optimizer,
        adapter=recipe.adapter, has_average=recipe.average_decay > 0,
    )  # fmt: skip


def test_the_plan_counts_averages_muons_state_and_magnitudes():
    recipe = dataclasses.replace(RECIPES["sample-dora"], optimizer="muon", average_decay=0.9)
    lora, dora = planned(RECIPES["sample-lora"]), planned(recipe)
    layers = load_model(TINY_MODEL, CPU).model.language_model.layers
    linear = [one for layer in layers for one in layer.modules() if isinstance(one, torch.nn.Linear)]
    n_rows = sum(one.out_features for one in linear)
    assert dora.n_trainable - lora.n_trainable == n_rows
    assert (lora.average_bytes, dora.average_bytes) == (0, 4 * dora.n_trainable)
    # Magnitudes are vectors and keep AdamW's two numbers.
    assert (lora.optimizer_bytes, dora.optimizer_bytes) == (8 * lora.n_trainable, 4 * lora.n_trainable + 8 * n_rows)
    assert lora.dora_bytes == 0
    assert dora.dora_bytes >= 6 * max(one.in_features for one in linear) ** 2
    # What peft computes for the row lengths is not kept for the backward pass.
    assert dora.activation_bytes_per_step < dora.dora_bytes
    assert dora.fixed_bytes - lora.fixed_bytes > dora.average_bytes


def test_the_plan_of_a_run_counts_the_averages_of_its_recipe():
    settings, lengths = RunSettings(model=str(TINY_MODEL), max_tokens=36), planning.PromptLengths(60, 20, 5)
    plain, averaged = (
        planning.plan_memory(settings, RECIPES[name], load_config(TINY_MODEL), lengths)
        for name in ("sample", "sample-ema")
    )
    assert (plain.average_bytes, averaged.average_bytes) == (0, 4 * averaged.n_trainable)


@pytest.mark.parametrize("variation", ["ema", "muon", "dora", "rslora"])
def test_sharding_is_refused_before_any_weight_is_loaded(layout, monkeypatch, variation):
    monkeypatch.setattr(training_run, "load_model", lambda *_: pytest.fail("loaded"))
    spec = run_spec.make_spec(RunSettings(), f"tuned-{variation}", 0, run_spec.no_data(layout))
    with pytest.raises(StageError, match="--use_fsdp supports"):
        training_run.prepare(spec, layout, "r", ShardedWorld(0, 2))

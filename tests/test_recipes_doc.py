"""The tables of docs/recipes.md state what the recipes do, field by field."""

import dataclasses
import math
import re

import pytest
import torch

from skincare.inference.decoders import max_new_tokens
from skincare.labels import skincare_labels
from skincare.modeling.families.registry import FAMILIES
from skincare.modeling.settings import Trainable
from skincare.paths import REPOSITORY
from skincare.training import optimizers
from skincare.training.recipes import RECIPES, Recipe
from skincare.training.run_settings import RunSettings

TEXT = (REPOSITORY / "docs" / "recipes.md").read_text(encoding="utf-8")
SETTINGS = RunSettings()
FIELDS = {field.name for field in dataclasses.fields(Recipe)} - {"description"}
# The row of `reference` that states a field of the recipe.
REFERENCE_ROWS = {
    "trainable": "trained parts, as described", "optimizer": "optimizer", "learning_rate": "learning rate",
    "rate_by_part": "learning rates by part", "weight_decay": "weight decay", "decays_everything": "weight decay",
    "schedule": "schedule", "restart_period_epochs": "schedule", "restart_multiplier": "schedule",
    "warmup_share": "schedule", "final_rate_share": "schedule", "effective_batch_size": "batch",
    "max_grad_norm": "clipping", "max_epochs": "epochs", "patience_epochs": "epochs", "imbalance": "loss",
    "label_smoothing": "loss", "head": "augmentation, moving average, adapters, classification head",
    "augmentation": "augmentation, moving average, adapters, classification head",
    "average_decay": "augmentation, moving average, adapters, classification head",
    "adapter": "augmentation, moving average, adapters, classification head",
    "data_share": "training images per epoch", "hint_dropout": "hint dropout",
}  # fmt: skip


def rows(heading):
    """The rows of all tables below a heading, by the text of their first cell, without backquotes."""
    section = re.split(r"^## ", TEXT, flags=re.MULTILINE)
    (found,) = [one for one in section if one.startswith(heading)]
    lines = [line.strip("|").split("|") for line in found.splitlines() if line.startswith("|")]
    return {cells[0].strip().replace("`", ""): [cell.strip() for cell in cells[1:]] for cells in lines}


def number(value):
    return f"{value:g}" if value == 0 or value >= 1e-3 else f"{value:.0e}".replace("e-0", "e-")


def adamw(recipe):
    (group,) = optimizers.make(recipe, {"one": torch.nn.Parameter(torch.zeros(1))}).param_groups
    betas = " and ".join(map(str, group["betas"]))
    return f"AdamW, betas {betas}, epsilon {number(group['eps'])}"


def test_every_field_of_the_recipe_has_a_row_for_the_reference():
    assert REFERENCE_ROWS.keys() == FIELDS
    assert set(REFERENCE_ROWS.values()) <= rows("`reference`").keys()


def test_the_rows_of_the_reference_state_its_values():
    one, table = RECIPES["reference"], rows("`reference`")
    value = {name: cells[0 if len(cells) == 1 else 1] for name, cells in table.items()}
    assert (one.trainable, value["trained parts, as described"]) == (Trainable(1, True, 1), "the same: 100,563,200")
    assert value["learning rate"] == number(one.learning_rate)
    assert value["batch"] == f"{one.effective_batch_size}, in passes that the memory plan chooses"
    assert value["image size"] == f"{SETTINGS.min_tokens} to {SETTINGS.max_tokens}"
    assert (one.data_share, value["training images per epoch"]) == (
        1 / 4, "a quarter of every category, rounded up",
    )  # fmt: skip
    assert value["epochs"] == f"at most {one.max_epochs}, stops {one.patience_epochs} epochs after the best"
    assert value["prediction"] == f"the same text in batches, at most {max_new_tokens(skincare_labels())} tokens"
    assert value["optimizer"] == adamw(one)
    assert (one.rate_by_part, value["learning rates by part"]) == ({}, "one for all")
    assert one.decays_everything
    assert value["weight decay"] == f"{one.weight_decay} on all tensors, norms and biases included"
    assert (one.schedule, one.restart_multiplier) == ("cosine_restarts", 1.0)
    assert value["schedule"] == (
        f"cosine with warm restarts every {number(one.restart_period_epochs)} epochs, down to "
        f"{number(one.final_rate_share)}, without warm-up"
    )
    assert value["clipping"] == f"gradient norm {one.max_grad_norm}"
    assert (one.imbalance, one.label_smoothing) == ("none", 0.0)
    assert value["loss"].endswith("no smoothing, no class weights")
    assert (one.augmentation, one.average_decay, one.adapter, one.head) == ("none", 0.0, None, "none")
    assert value[REFERENCE_ROWS["head"]] == "none"
    assert value["hint dropout"].startswith(f"{one.hint_dropout},")
    n_steps = math.ceil(407 / one.effective_batch_size)
    assert f"at most {one.max_epochs} x {n_steps} steps" in TEXT
    assert one.rate(0, n_steps) == one.rate(5 * n_steps, n_steps) == one.learning_rate, "no warm-up; a restart"


def test_the_rows_of_the_advice_state_its_values():
    one, table = RECIPES["best"], {name: cells[0] for name, cells in rows("`best`").items()}
    rates = {part: number(one.learning_rate * share) for part, share in one.rate_by_part.items()}
    assert one.trainable == Trainable(1, True, 0)
    assert not (one.adapter.use_dora or one.adapter.use_rslora or one.adapter.n_bits < 16)
    assert table["language layers"] == (
        f"LoRA on every projection of all layers, rank {one.adapter.rank}, alpha {one.adapter.alpha}"
    )
    assert table["learning rate of LoRA"] == rates["lora"]
    assert table["last vision block, merger"] == f"{rates['vision']}, {rates['merger']}"
    assert table["prediction"] == f"classification head at {rates['head']}, trained jointly with the answer"
    assert (one.head, one.schedule, one.final_rate_share) == ("joint", "warmup_cosine", 0.0)
    assert table["batch, schedule"] == (
        f"{one.effective_batch_size}; cosine down to 0 after {number(100 * one.warmup_share)} % warm-up"
    )
    assert table["epochs"] == f"{one.max_epochs}, stops {one.patience_epochs} after the best"
    assert not one.decays_everything
    assert table["clipping, weight decay"] == f"{one.max_grad_norm}; {one.weight_decay}, not on norms and biases"
    assert (one.optimizer, table["optimizer"]) == ("adamw", adamw(one))
    assert table["images"] == f"all, {SETTINGS.min_tokens} to {SETTINGS.max_tokens} visual tokens"
    assert (one.data_share, one.imbalance, one.augmentation) == (1.0, "none", "none")
    assert (one.label_smoothing, one.average_decay) == (0.0, 0.0)


def test_the_options_have_the_stated_strength():
    found = {name: cells[-1] for name, cells in rows("What the options change").items()}
    one = RECIPES["tuned-rslora"].adapter
    assert found["rank-stabilised LoRA"] == (
        f"scale alpha / sqrt(rank) instead of alpha / rank: {number(one.alpha / one.rank**0.5)} instead of "
        f"{number(one.alpha / one.rank)} at rank {one.rank} and alpha {one.alpha}"
    )
    assert found["label smoothing"].startswith(f"{RECIPES['tuned-smooth'].label_smoothing} of the target")
    n_steps = 1 / (1 - RECIPES["tuned-ema"].average_decay)
    assert found["moving average of the weights"].startswith(f"the average over about {n_steps:.0f} steps")


@pytest.mark.parametrize("name", ["tuned-lora", "tuned-dora", "tuned-rslora"])
def test_adapters_have_the_learning_rate_that_is_stated(name):
    assert RECIPES[name].learning_rate == RECIPES["tuned"].learning_rate == 1e-5
    assert not RECIPES[name].rate_by_part
    assert re.search(r"`tuned-lora`, `tuned-dora` and `tuned-rslora` have the learning rate of `tuned`, 1e-5;", TEXT)


def test_the_trained_weights_of_the_planned_recipes_are_those_of_the_published_shape():
    """By arithmetic; tests/test_planning.py counts the parts of the reference on the built model."""
    text = FAMILIES["qwen2_vl"].published.config["text_config"]
    width, inner = text["hidden_size"], text["intermediate_size"]
    of_keys = width * text["num_key_value_heads"] // text["num_attention_heads"]
    shapes = [(width, width)] * 2 + [(width, of_keys)] * 2 + [(width, inner)] * 2 + [(inner, width)]
    n_layers, block, merger, layer = text["num_hidden_layers"], 19_677_440, 34_087_936, 46_797_824
    by_rank = n_layers * sum(rows + columns for columns, rows in shapes)
    lora, parts = RECIPES["tuned-lora"].adapter.rank * by_rank, block + merger + layer
    expected = {
        "reference": parts, "tuned, tuned-head": parts, "tuned-muon": parts, "tuned-ema": parts,
        "best": lora + block + merger, "tuned-lora": lora, "tuned-dora": lora + n_layers * sum(n for _, n in shapes),
        "tuned-rslora (rank 64)": RECIPES["tuned-rslora"].adapter.rank * by_rank,
        "tuned-k4": 4 * block + merger + 4 * layer,
    }  # fmt: skip
    table = rows("Planned memory")
    assert {name: table[name][0] for name in expected} == {name: f"{n:,}" for name, n in expected.items()}
    assert table.keys() - expected.keys() == {"Recipe", "---"}

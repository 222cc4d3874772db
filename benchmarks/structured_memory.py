"""Memory of structured answers at the true shape of Qwen2-VL-2B: the plan of finetune.py against real training passes.

The weights are random, in bf16, the trained ones in fp32; the tokenizer is Qwen's (`qwen_vocabulary`). Each row is the
second pass of an optimizer step, with gradients and optimizer states in memory: forward, loss, backward. Its peak is
that of all live tensors (`LiveBytes`), as the caching allocator of a GPU would count them, without fragmentation and
context, which the plan adds as constants. The answers have the mean and the longest number of tokens. The peak of the
process (resident set) is listed too; it holds the code of torch as well.

Out: benchmarks/results/structured_memory_<device>.json and a table. A row replaces the earlier one of the same setting;
rows of other settings stay, each with the commit that it was measured at.
Command: python benchmarks/structured_memory.py --vocabulary qwen.tiktoken
         python benchmarks/structured_memory.py --vocabulary qwen.tiktoken --recipes reference --answers 131
Time: 15 minutes on two CPU cores with bf16; needs 12 GB of memory.
"""

import gc
import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
import tyro

from full_size import REPOSITORY, device_name, full_size_model
from live_bytes import LiveBytes
from qwen_vocabulary import processor
from skincare.files import write_json
from skincare.labels import skincare_labels
from skincare.modeling import device_memory
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.freezing import freeze
from skincare.modeling.loading import default_device
from skincare.modeling.losses import example_losses
from skincare.modeling.prompt_encoder import Patches, PromptEncoder
from skincare.prompts import labels_for
from skincare.runlog import environment, git_commit
from skincare.training import adapters, memory_plan
from skincare.training.gradient_checkpointing import enable_checkpointing
from skincare.training.recipes import RECIPES, Recipe

logger = logging.getLogger("structured_memory")

_GRID: Final = (1, 16, 32)  # 128 visual tokens
_MIB: Final = 2**20
# What a row is about; there is one row of each setting.
_SETTING: Final = ("recipe", "n_layers", "n_vision_blocks", "checkpointing", "answer_tokens", "images")


@dataclass(frozen=True)
class Config:
    """What to measure."""

    vocabulary: Path
    """Qwen's vocabulary, see qwen_vocabulary.py."""
    recipes: tuple[str, ...] = ("reference", "tuned-lora")
    """Recipes to train with."""
    answers: tuple[int, ...] = (131, 768)
    """Tokens of the answers: the mean of a catalogue of 1,126 products, and the most that is allowed."""
    batch_sizes: tuple[int, ...] = (1, 2)
    """Images per pass."""
    checkpointing: tuple[Literal["off", "on"], ...] = ("off", "on")
    """Gradient checkpointing of the language layers."""
    n_layers: int = 28
    """Language layers of the model; with fewer it keeps its width."""
    n_vision_blocks: int = 32
    """Vision blocks of the model."""
    limit_gib: float = 11.0
    """Leave out passes whose plan, without constants, is above this."""
    out: Path | None = None
    """Where to write the JSON; below benchmarks/results/ if left out."""


class Training:
    """The model with a recipe's trainable part, and passes over images with answers of a given length."""

    def __init__(self, config: Config, encoder: PromptEncoder, recipe: Recipe, device: torch.device) -> None:
        self.encoder = encoder
        self.recipe = recipe
        self.model = full_size_model(torch.bfloat16, device, encoder, config.n_layers, config.n_vision_blocks)
        if recipe.adapter:
            adapters.add_lora(self.model, recipe.adapter, seed=0)
        parameters = freeze(self.model, recipe.trainable) | adapters.enable_lora_training(self.model)
        self.network = CachedVLM(self.model).train()
        self.optimizer = torch.optim.AdamW(parameters.values(), lr=0.0)
        patches = torch.randn(_GRID[1] * _GRID[2], 1176, generator=torch.Generator().manual_seed(0)).to(device)
        self.features = self.network.vision_features([Patches(patches, _GRID)])
        self._backward(8, 1)
        self.optimizer.step()

    def measure(self, n_answer: int, n_images: int) -> dict[str, Any]:
        """Return the peak of the live tensors of a pass that adds to the gradients, its time and the process's peak."""
        gc.collect()
        device_memory.reset_peak(self.network.device)
        with LiveBytes() as live:
            started = time.perf_counter()
            self._backward(n_answer, n_images)
            seconds = time.perf_counter() - started
        return {
            "pass_mib": live.peak / _MIB,
            "total_mib": (live.peak + self.persistent_bytes()) / _MIB,
            "process_mib": device_memory.peak_bytes(self.network.device) / _MIB,
            "seconds": round(seconds, 1),
        }

    def persistent_bytes(self) -> int:
        """Return the bytes of weights, gradients, optimizer states, cached features and prompt prefix."""
        states = [one for state in self.optimizer.state.values() for one in state.values()]
        tensors = [*self.model.parameters(), *(one.grad for one in self.model.parameters() if one.grad is not None)]
        return sum(
            {one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in (*tensors, *states)}.values()
        )

    def plan(self, n_answer: int) -> memory_plan.MemoryPlan:
        """Return the plan for answers of this length."""
        n_prefix = len(self.encoder.prompt_prefix)
        n_tokens = len(self.encoder.prompt_tokens) + self.encoder.n_visual_tokens(_GRID) + n_answer
        return memory_plan.plan(
            self.model.config, self.recipe.trainable, n_tokens, _GRID, 1, 16 * memory_plan.GIB,
            adapter=self.recipe.adapter, n_prefix=n_prefix, n_answer=n_answer, with_alternatives=False,
        )  # fmt: skip

    def _backward(self, n_answer: int, n_images: int) -> None:
        answers = [answer_of(self.encoder, n_answer)] * n_images
        grids, features = [_GRID] * n_images, self.features * n_images
        categories = [self.encoder.labels.names[0]] * n_images
        example_losses(
            self.network, self.encoder, "none", grids, features, categories, answers=answers
        ).mean().backward()


def answer_of(encoder: PromptEncoder, n_tokens: int) -> str:
    """Return a text of this many tokens, with the end token."""
    text = " cream" * (n_tokens - 1)
    assert len(encoder.answer_tokens(text)) == n_tokens
    return text


def rows_of(config: Config, encoder: PromptEncoder, name: str, device: torch.device) -> Iterator[dict[str, Any]]:
    """Yield planned and measured memory of a recipe for each length, batch size and setting of checkpointing."""
    training = Training(config, encoder, RECIPES[name], device)
    plans = {n_answer: training.plan(n_answer) for n_answer in config.answers}
    for checkpointing in sorted(config.checkpointing):
        if checkpointing == "on":
            enable_checkpointing(training.model)
        for n_answer, plan in plans.items():
            per_image = plan.activation_bytes_per_image
            if checkpointing == "on":
                per_image = plan.checkpointed_bytes_per_image + plan.recomputed_bytes_per_image
            for n_images in config.batch_sizes:
                planned = plan.fixed_bytes + n_images * per_image
                shape = (config.n_layers, config.n_vision_blocks)
                row = dict(zip(_SETTING, (name, *shape, checkpointing, n_answer, n_images), strict=True))
                row |= {"planned_mib": planned / _MIB, "planned_per_image_mib": per_image / _MIB}
                if planned > config.limit_gib * memory_plan.GIB:
                    yield row
                    continue
                row |= training.measure(n_answer, n_images)
                yield row | {"planned_to_measured": row["planned_mib"] / row["total_mib"]}


def describe(row: dict[str, Any]) -> str:
    """Return a row as a line of a Markdown table."""
    measured = ["", "", ""] if "total_mib" not in row else [
        f"{row['total_mib']:,.0f}", f"{row['planned_to_measured']:.2f}", f"{row['seconds']:.0f}"]  # fmt: skip
    cells = [
        row["recipe"], f"{row['n_layers']} + {row['n_vision_blocks']}", row["checkpointing"], row["answer_tokens"],
        row["images"], f"{row['planned_mib']:,.0f}", *measured,
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def read_rows(out: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return the rows of an earlier run by their setting."""
    rows = json.loads(out.read_text())["rows"] if out.is_file() else []
    return {tuple(row[key] for key in _SETTING): row for row in rows}


def main() -> None:
    """Measure every recipe and write the results."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config, device = tyro.cli(Config, description=__doc__), default_device()
    encoder = PromptEncoder(processor(config.vocabulary), labels_for("product", skincare_labels()))
    out = config.out or REPOSITORY / "benchmarks" / "results" / f"structured_memory_{device.type}.json"
    logger.info("| recipe | layers | checkpointing | answer | images | planned MiB | measured MiB | ratio | seconds |")
    for name in config.recipes:
        for row in rows_of(config, encoder, name, device):
            logger.info("%s", describe(row))
            setting = tuple(row[key] for key in _SETTING)
            conditions = {"threads": torch.get_num_threads(), "load": os.getloadavg()[0], "git_commit": git_commit()}
            rows = read_rows(out) | {setting: row | conditions}
            ordered = [rows[key] for key in sorted(rows)]
            write_json(out, {"device": device_name(device), "rows": ordered, **environment()})
        gc.collect()


if __name__ == "__main__":
    main()

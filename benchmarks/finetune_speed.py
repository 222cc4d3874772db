"""Training speed and memory at the true shape of Qwen2-VL-2B: the reference's way, two public trainers, ours.

The weights are random (built from the config, nothing is downloaded), the pictures drawn, the batch and its pictures
the same for all; each variant runs in a process of its own. What is measured is an optimizer step: reading and
resizing pictures, forward, backward, update.

    reference    all weights fp32, tied embedding trainable too, autocast, checkpointing, one picture at a time
    trainer      Hugging Face Trainer, the three modules trainable, bf16, its default for checkpointing (off)
    sft_trainer  TRL SFTTrainer, the same, its default for checkpointing (on)
    ours         frozen prefix without a graph, answer-only logits, fp32 trainables, no cache
    ours_cached  and the frozen prefix's output from the cache, as finetune.py runs

Out: benchmarks/results/finetune_speed_<device>.json and a table.
Command: python benchmarks/finetune_speed.py   (pip install trl==1.16.0 for sft_trainer)
Time: 10 minutes on two CPU cores; seconds on a GPU. Needs 20 GB of memory.
"""

import json
import logging
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from PIL import Image

from full_size import REPOSITORY, full_size_model
from skincare import device_memory, objectives
from skincare.batches import PromptEncoder
from skincare.freezing import Trainable, freeze, trainable_modules
from skincare.model import PixelLimits, default_device, load_processor
from skincare.paths import TINY_MODEL
from skincare.pictures import PictureStates
from skincare.prompts import user_messages
from skincare.recogniser import Recogniser
from skincare.runlog import environment
from skincare.sample import drawing

logger = logging.getLogger("finetune_speed")

VARIANTS = ("reference", "trainer", "sft_trainer", "ours", "ours_cached")
ANSWER = "Moisturiser"


@dataclass(frozen=True)
class Config:
    """What to measure."""

    variants: str = ",".join(VARIANTS)
    """Variants to run, separated by commas."""
    batch_size: int = 2
    """Pictures per optimizer step."""
    n_steps: int = 3
    """Steps that are timed, after one that is not."""
    cap_gb: float | None = None
    """On CUDA, let a process have no more than so many GiB."""
    child: str = ""
    """Run one variant in this process (used by the script itself)."""


def pictures(folder: Path, n_pictures: int) -> list[str]:
    """Write drawn photos of 600 x 600 pixels; return their names."""
    names = []
    for i in range(n_pictures):
        rng = random.Random(i)
        image = drawing.draw(drawing.random_packaging(rng), drawing.View(), 600, "BENCH").image
        names.append(f"pack_{10_000_000 + i}_1.jpg")
        image.save(folder / names[-1], quality=92)
    return names


def reference(config: Config, folder: Path, names: list[str], device: torch.device) -> Callable[[], None]:
    """Return a step as the reference takes it."""
    encoder = PromptEncoder(load_processor(TINY_MODEL, PixelLimits()))
    model = full_size_model(torch.float32, device, encoder)
    model.requires_grad_(False)
    for module in (*trainable_modules(model, Trainable()).values(), model.get_input_embeddings()):
        module.requires_grad_(True)
    model.gradient_checkpointing_enable()
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=5e-7, weight_decay=0.01)

    def step() -> None:
        for name in names[: config.batch_size]:
            inputs = _processed(encoder, [Image.open(folder / name)]).to(device)
            with torch.autocast(device.type, torch.bfloat16):
                loss = model(**inputs).loss / config.batch_size
            loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _processed(encoder: PromptEncoder, images: list[Image.Image]) -> Any:
    """Return the processor's inputs with labels on the answer, as public examples build them."""
    text = encoder.processor.apply_chat_template(user_messages(), add_generation_prompt=True, tokenize=False)
    full = f"{text}{ANSWER}<|im_end|>"
    inputs = encoder.processor(text=[full] * len(images), images=images, return_tensors="pt", padding=True)
    labels = inputs["input_ids"].clone()
    labels[:, : -len(encoder.answer_tokens(ANSWER))] = -100
    inputs["labels"] = labels
    return inputs


def trainer(config: Config, folder: Path, names: list[str], device: torch.device) -> list[float]:
    """Run Hugging Face Trainer; return the seconds of its timed steps."""
    from transformers import Trainer, TrainingArguments

    encoder = PromptEncoder(load_processor(TINY_MODEL, PixelLimits()))
    model = _three_modules(full_size_model(torch.bfloat16, device, encoder))
    rows = [{"name": names[i % len(names)]} for i in range(config.batch_size * (config.n_steps + 1))]
    arguments = TrainingArguments(**_arguments(config, folder, device), remove_unused_columns=False)
    clock = _clock(device)
    Trainer(
        model, arguments, train_dataset=rows, callbacks=[clock],
        data_collator=lambda some: dict(_processed(encoder, [Image.open(folder / row["name"]) for row in some])),
    ).train()  # fmt: skip
    return clock.seconds()


def sft_trainer(config: Config, folder: Path, names: list[str], device: torch.device) -> list[float]:
    """Run TRL's SFTTrainer; return the seconds of its timed steps."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    encoder = PromptEncoder(load_processor(TINY_MODEL, PixelLimits()))
    model = _three_modules(full_size_model(torch.bfloat16, device, encoder))
    system, user = user_messages()
    user = {"role": "user", "content": [{"type": "image"}, user["content"][1]]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]}
    images = [Image.open(folder / name).convert("RGB") for name in names]
    rows = Dataset.from_list([
        {"prompt": [system, user], "completion": [answer], "images": [images[i % len(images)]]}
        for i in range(config.batch_size * (config.n_steps + 1))
    ])  # fmt: skip
    clock = _clock(device)
    SFTTrainer(
        model, args=SFTConfig(**_arguments(config, folder, device), max_length=None), train_dataset=rows,
        processing_class=encoder.processor, callbacks=[clock],
    ).train()  # fmt: skip
    return clock.seconds()


def _three_modules(model: Any) -> Any:
    model.requires_grad_(False)
    for module in trainable_modules(model, Trainable()).values():
        module.requires_grad_(True)
    return model


def _arguments(config: Config, folder: Path, device: torch.device) -> dict[str, Any]:
    return {
        "output_dir": str(folder / "out"), "per_device_train_batch_size": config.batch_size,
        "max_steps": config.n_steps + 1, "bf16": True, "use_cpu": device.type == "cpu", "report_to": "none",
        "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True, "dataloader_pin_memory": False,
    }  # fmt: skip


def _clock(device: torch.device) -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        """Notes when steps end; the first is not timed."""

        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if device.type == "cuda":
                torch.cuda.synchronize()
            self.ends.append(time.perf_counter())

        def seconds(self) -> list[float]:
            return [after - before for before, after in zip(self.ends, self.ends[1:], strict=False)]

    return Clock()


def ours(
    config: Config, folder: Path, names: list[str], device: torch.device, *, cached: bool = False
) -> Callable[[], None]:
    """Return a step as finetune.py takes it, with pictures from the cache or looked at anew."""
    encoder = PromptEncoder(load_processor(TINY_MODEL, PixelLimits()))
    model = full_size_model(torch.bfloat16, device, encoder)
    parameters = freeze(model, Trainable())
    recogniser = Recogniser(model)
    recogniser.train()
    states_of = PictureStates(recogniser, encoder, folder, folder / "cache" if cached else None)
    optimizer = torch.optim.AdamW(parameters.values(), lr=5e-7, weight_decay=0.01)

    def step() -> None:
        some = names[: config.batch_size]
        grids, states = states_of.get(some) if cached else states_of.views(some, [lambda image: image] * len(some))
        answers = [ANSWER] * len(some)
        objectives.losses(recogniser, encoder, "none", grids, states, answers).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 0.5)
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure(config: Config) -> dict[str, Any]:
    """Run one variant; return seconds per step, pictures per second and peak memory."""
    device = default_device()
    if config.cap_gb and device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(config.cap_gb * 2**30 / total)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        some = pictures(folder, config.batch_size)
        if config.child in ("trainer", "sft_trainer"):
            seconds = {"trainer": trainer, "sft_trainer": sft_trainer}[config.child](config, folder, some, device)
        else:
            step = (
                reference(config, folder, some, device)
                if config.child == "reference"
                else ours(config, folder, some, device, cached=config.child == "ours_cached")
            )
            seconds = [_timed(step, device) for _ in range(config.n_steps + 1)][1:]
    median = statistics.median(seconds)
    return {
        "variant": config.child,
        "step_seconds": [round(value, 3) for value in seconds],
        "pictures_per_second": config.batch_size / median,
        "peak_gib": device_memory.peak_bytes(device) / 2**30,
    }


def _timed(step: Callable[[], None], device: torch.device) -> float:
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    """Run every variant in a process of its own and set them side by side."""
    config = tyro.cli(Config, description=__doc__)
    if config.child:
        sys.stdout.write(json.dumps(measure(config)) + "\n")
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows = []
    for variant in config.variants.split(","):
        cap = ["--cap-gb", str(config.cap_gb)] if config.cap_gb else []
        sizes = ["--batch-size", str(config.batch_size), "--n-steps", str(config.n_steps)]
        command = [sys.executable, __file__, "--child", variant, *sizes, *cap]
        found = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "WANDB_MODE": "disabled"})
        if found.returncode:
            rows.append({"variant": variant, "error": (found.stderr.strip().splitlines() or ["killed"])[-1][:300]})
        else:
            rows.append(json.loads(found.stdout.strip().splitlines()[-1]))
        logger.info("%s", rows[-1])
    _write(config, rows)


def _write(config: Config, rows: list[dict[str, Any]]) -> None:
    device = default_device()
    slowest = next((row["pictures_per_second"] for row in rows if "pictures_per_second" in row), None)
    logger.info("%-12s %12s %8s %10s", "variant", "pictures/s", "ratio", "peak GiB")
    for row in rows:
        if "error" in row:
            logger.info("%-12s %s", row["variant"], row["error"])
        else:
            row["ratio"] = row["pictures_per_second"] / slowest
            logger.info(
                "%-12s %12.3f %8.2f %10.1f", row["variant"], row["pictures_per_second"], row["ratio"], row["peak_gib"]
            )
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} cores, {platform.machine()}"
    out = REPOSITORY / "benchmarks" / "results" / f"finetune_speed_{device.type}.json"
    out.parent.mkdir(exist_ok=True)
    plain = {"device": name, "batch_size": config.batch_size, "n_steps": config.n_steps, "cap_gb": config.cap_gb,
             "rows": rows, **environment()}  # fmt: skip
    out.write_text(json.dumps(plain, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""The stages for structured answers, and every kind of export, at the true shape of Qwen2-VL-2B with random weights.

A checkpoint of that shape is written with Qwen's tokenizer (`qwen_vocabulary`), and the commands of README.md and of
docs/export.md run on it, each in its own process: time, CPU time, peak memory (resident set) and the size of what they
write. The dataset is that of a sample run, cut to a few images. Random weights never end an answer, so that the context
length of the checkpoint is reduced to the prompt and the longest answer of the dataset.

Out: benchmarks/results/full_size_commands.json; checkpoint and stages' files in --folder.
Command: python src/run_all.py --sample; python benchmarks/full_size_commands.py --vocabulary qwen.tiktoken
         python benchmarks/full_size_commands.py --vocabulary qwen.tiktoken --commands export-4bit
Time: 30 minutes on two CPU cores with bf16; needs 12 GB of memory and 20 GB of disk space.
"""

import json
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import tyro

from full_size import REPOSITORY, device_name, full_size_model
from qwen_vocabulary import processor
from skincare.dataset import chat
from skincare.labels import skincare_labels
from skincare.modeling.loading import default_device
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.paths import SPLITS, Layout
from skincare.prompts import labels_for
from skincare.runlog import environment
from skincare.training.model_export import write_model
from skincare.training.planning import prompt_lengths

logger = logging.getLogger("full_size_commands")

_RUN: Final = "full"
_N_IMAGES: Final = {"train": 8, "val": 2, "test": 2}
_TIME_LIMIT_CODE: Final = 75

# Name -> stage and arguments; {model} is the checkpoint, {image} an image of test. Exports are loaded by zero_shot.py.
COMMANDS: Final[dict[str, str]] = {
    "plan": "finetune --plan --vram-gb 16 --model {model}",
    "plan-qwen2.5-vl-3b": "finetune --plan --vram-gb 16 --model Qwen/Qwen2.5-VL-3B-Instruct",
    "plan-qwen3-vl-2b": "finetune --plan --vram-gb 16 --model Qwen/Qwen3-VL-2B-Instruct",
    "finetune": "finetune --model {model} --run steps --restart --max-minutes 0.01",
    "finetune-resumed": "finetune --model {model} --run steps --resume --max-minutes 0.01",
    "zero-shot-generate": "zero_shot --model {model} --decoder generate --no-cache-predictions",
    "zero-shot-constrained": "zero_shot --model {model} --decoder constrained --no-cache-predictions",
    "predict": "predict {image} --target product --by model --model {model} --decoder constrained",
    "export-bf16": "export --run full --no-evaluate --overwrite",
    "export-evaluated": "export --run full --overwrite",
    "export-8bit": "export --run full --quantize 8bit --no-evaluate --overwrite",
    "export-4bit": "export --run full --quantize 4bit --no-evaluate --overwrite",
    "export-drop2": "export --run full --drop-layers 2 --overwrite",
    "load-8bit": "zero_shot --model {exports}/full-8bit --no-cache-predictions",
    "load-4bit": "zero_shot --model {exports}/full-4bit --no-cache-predictions",
    "load-drop2": "zero_shot --model {exports}/full-drop2-bf16 --no-cache-predictions",
}
# Folders whose files a command writes.
_WRITTEN: Final = {
    "finetune": "models/finetuned/steps", "finetune-resumed": "models/finetuned/steps",
    "export-bf16": "models/exported/full-bf16", "export-evaluated": "models/exported/full-bf16",
    "export-8bit": "models/exported/full-8bit",
    "export-4bit": "models/exported/full-4bit", "export-drop2": "models/exported/full-drop2-bf16",
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """What to run."""

    vocabulary: Path
    """Qwen's vocabulary, see qwen_vocabulary.py."""
    folder: Path
    """Folder for the checkpoint and for what the stages write."""
    sample: Path = REPOSITORY / "sample_run"
    """A sample run, made by `python src/run_all.py --sample`."""
    commands: tuple[str, ...] = tuple(COMMANDS)
    """Commands to run; the others keep their earlier results."""
    n_layers: int = 28
    """Language layers of the checkpoint."""
    n_vision_blocks: int = 32
    """Vision blocks of the checkpoint."""
    out: Path = REPOSITORY / "benchmarks" / "results" / "full_size_commands.json"
    """Where to write the JSON."""


def build_dataset(config: Config, layout: Layout) -> None:
    """Build the dataset of structured answers from the sample's tables and cut it to a few images."""
    for name in ("csv_data", "clean_dataset"):
        shutil.copytree(config.sample / name, layout.root / name, dirs_exist_ok=True)
    for command in ("product_facts", "build_dataset --target product --fields category size"):
        stage, *arguments = command.split()
        script = REPOSITORY / "src" / f"{stage}.py"
        subprocess.run([sys.executable, script, "--root", layout.root, *arguments], check=True)
    for split in SPLITS:
        chat.write_dataset(layout, split, chat.read_dataset(layout, split)[: _N_IMAGES[split]])


def write_checkpoint(config: Config, layout: Layout) -> dict[str, Any]:
    """Write the checkpoint as a finished run; return its time and size."""
    labels = labels_for("product", skincare_labels())
    prepared = processor(config.vocabulary)
    encoder = PromptEncoder(prepared, labels)
    answers = [one.product for split in SPLITS for one in chat.read_dataset(layout, split)]
    lengths = prompt_lengths(encoder, [], answers)
    model = full_size_model(torch.bfloat16, torch.device("cpu"), encoder, config.n_layers, config.n_vision_blocks)
    model.config.text_config.max_position_embeddings = lengths.n_prefix + 128 + lengths.n_suffix
    folder = layout.finetuned_model(_RUN)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    write_model(folder, model, None, prepared, labels)
    return {"command": "save_pretrained", "seconds": round(time.perf_counter() - started, 1), **size_of(folder)}


def measure(name: str, layout: Layout) -> dict[str, Any]:
    """Run a command; return its exit code, times, peak memory, and the size of what it wrote."""
    image = layout.root / chat.read_dataset(layout, "test")[0].image
    known = {"model": layout.finetuned_model(_RUN), "image": image, "exports": layout.root / "models" / "exported"}
    stage, *arguments = COMMANDS[name].format(**known).split()
    script = str(REPOSITORY / "src" / f"{stage}.py")
    log = layout.root / f"{name}.log"
    started = time.perf_counter()
    with log.open("w") as output:
        command = [sys.executable, script, "--root", str(layout.root), *arguments]
        process = os.posix_spawn(
            sys.executable, command, os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, output.fileno(), 1), (os.POSIX_SPAWN_DUP2, output.fileno(), 2)],
        )  # fmt: skip
        _, status, usage = os.wait4(process, 0)
    seconds, code = time.perf_counter() - started, os.waitstatus_to_exitcode(status)
    lines = log.read_text().strip().splitlines()
    if code not in (0, _TIME_LIMIT_CODE):
        logger.warning("%s ended with %d: %s", name, code, "\n".join(lines[-5:]))
    return {
        "command": COMMANDS[name].replace("{model}", "MODEL").replace("{exports}/", "").replace("{image}", "IMAGE"),
        "exit_code": code,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_gib": usage.ru_maxrss / 2**20,
        "last_line": (lines[-1] if lines else "").replace(f"{layout.root}/", ""),
        **(size_of(layout.root / _WRITTEN[name]) if name in _WRITTEN else {}),
        **(plan_of(layout) if name.startswith("plan") else {}),
        **(
            comparison_of(layout.root / _WRITTEN[name])
            if name in ("export-evaluated", "export-drop2") and code == 0
            else {}
        ),
    }


def plan_of(layout: Layout) -> dict[str, Any]:
    """Return the numbers of the last plan."""
    found = json.loads(layout.finetune_plan.read_text())
    keys = (
        "total_bytes", "activation_bytes_per_image", "checkpointed_bytes_per_image", "micro_batch_size",
        "gradient_checkpointing", "checkpoint_bytes", "model_bytes",
    )  # fmt: skip
    return {key: found[key] for key in keys}


def comparison_of(folder: Path) -> dict[str, Any]:
    """Return the number of answers on val that the export changes, and the dropped layers."""
    found = json.loads((folder / "export.json").read_text())
    compared = found["evaluation"]["comparison"]
    return {"n_val": compared["n"], "n_other_answers": compared["n_other_answers"], "dropped": found["dropped_layers"]}


def size_of(folder: Path) -> dict[str, Any]:
    """Return the bytes of the weights in a folder and below it."""
    return {"safetensors_bytes": sum(path.stat().st_size for path in folder.rglob("*.safetensors"))}


def main() -> None:
    """Write dataset and checkpoint if they are missing, and run the commands."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = tyro.cli(Config, description=__doc__)
    config.folder.mkdir(parents=True, exist_ok=True)
    layout = Layout(config.folder.resolve())
    found = json.loads(config.out.read_text()) if config.out.is_file() else {}
    rows: dict[str, Any] = found.get("rows", {})
    if not (layout.finetuned_model(_RUN) / "config.json").is_file():
        build_dataset(config, layout)
        # In its own process, which returns the memory of the weights.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            rows = {"checkpoint": pool.submit(write_checkpoint, config, layout).result()}
    for name in config.commands:
        rows[name] = measure(name, layout)
        logger.info("%s: %s", name, rows[name])
        settings = {"n_layers": config.n_layers, "n_vision_blocks": config.n_vision_blocks, "images": _N_IMAGES}
        record = {"device": device_name(default_device()), **settings, "rows": rows, **environment()}
        config.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

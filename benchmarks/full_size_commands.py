"""The stages for structured answers, and every kind of export, at the true shape of Qwen2-VL-2B with random weights.

A checkpoint of that shape is written with Qwen's tokenizer (`qwen_vocabulary`), and the commands of README.md and of
docs/export.md run on it, each in its own process: time, processor time, peak memory (resident set) and the size of what
they write. The dataset is that of a sample run, cut to a few images.

Random weights never end an answer, so that the context length of the checkpoint (config.json) bounds it. Training needs
the prompt and the longest answer of the dataset; inference has a second checkpoint of the same weights, in the same
file on disk, whose context leaves `n_answer_tokens`. Its texts are compared with those of each export.

Out: benchmarks/results/full_size_commands.json, by the number of language layers and vision blocks; checkpoints and the
stages' files in --folder. Each row has the commit that it was measured at.
Command: python src/run_all.py --sample
         python benchmarks/full_size_commands.py --vocabulary qwen.tiktoken --folder FOLDER
         python benchmarks/full_size_commands.py --vocabulary qwen.tiktoken --folder FOLDER --commands export-4bit
         ... --folder OTHER --n-layers 4 --n-vision-blocks 2
Time: 60 minutes on two CPU cores with bf16, 10 with four layers; needs 12 GB of memory and 20 GB of disk space.
"""

import json
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import tyro

from full_size import REPOSITORY, device_name, full_size_model
from qwen_vocabulary import processor
from skincare.dataset import chat
from skincare.files import write_json
from skincare.labels import skincare_labels
from skincare.modeling.loading import default_device
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.modeling.settings import PixelLimits
from skincare.paths import SPLITS, Layout
from skincare.prompts import labels_for
from skincare.runlog import environment, git_commit
from skincare.training.model_export import write_model
from skincare.training.planning import prompt_lengths

logger = logging.getLogger("full_size_commands")

# Runs of finetune.py: the checkpoint to train, and the same weights with a context for short answers.
_TRAINED: Final = "base"
_RUN: Final = "full"
_N_IMAGES: Final = {"train": 8, "val": 2, "test": 2}
_TIME_LIMIT_CODE: Final = 75

# Name -> stage and arguments; {base} and {model} are the checkpoints, {image} an image of test.
COMMANDS: Final[dict[str, str]] = {
    "plan": "finetune --plan --vram-gb 16 --model {base}",
    "plan-qwen2.5-vl-3b": "finetune --plan --vram-gb 16 --model Qwen/Qwen2.5-VL-3B-Instruct",
    "plan-qwen3-vl-2b": "finetune --plan --vram-gb 16 --model Qwen/Qwen3-VL-2B-Instruct",
    "finetune": "finetune --model {base} --run steps --restart --micro-batch-size 1 --max-minutes 0.01",
    "finetune-resumed": "finetune --model {base} --run steps --resume --micro-batch-size 1 --max-minutes 0.01",
    "zero-shot-generate": "zero_shot --model {model} --no-cache-predictions",
    "zero-shot-constrained": "zero_shot --model {model} --decoder constrained --no-cache-predictions",
    "predict": "predict {image} --target product --by model --model {model} --decoder constrained",
    "export-bf16": "export --run full --overwrite",
    "export-8bit": "export --run full --quantize 8bit --no-evaluate --overwrite",
    "export-4bit": "export --run full --quantize 4bit --no-evaluate --overwrite",
    "export-drop2": "export --run full --drop-layers 2 --overwrite",
    "load-bf16": "zero_shot --model {exports}/full-bf16 --no-cache-predictions",
    "load-8bit": "zero_shot --model {exports}/full-8bit --no-cache-predictions",
    "load-4bit": "zero_shot --model {exports}/full-4bit --no-cache-predictions",
    "load-drop2": "zero_shot --model {exports}/full-drop2-bf16 --no-cache-predictions",
}
# Folders whose files a command writes.
_WRITTEN: Final = {
    "finetune": "models/finetuned/steps", "finetune-resumed": "models/finetuned/steps",
    "export-bf16": "models/exported/full-bf16", "export-8bit": "models/exported/full-8bit",
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
    """Language layers of the checkpoint; with fewer it keeps its width."""
    n_vision_blocks: int = 32
    """Vision blocks of the checkpoint."""
    n_answer_tokens: int = 8
    """Tokens of an answer in inference."""
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


def write_checkpoints(config: Config, layout: Layout) -> dict[str, Any]:
    """Write both checkpoints as finished runs; return the time and the size of the weights."""
    labels = labels_for("product", skincare_labels())
    prepared = processor(config.vocabulary)
    encoder = PromptEncoder(prepared, labels)
    answers = [one.product for split in SPLITS for one in chat.read_dataset(layout, split)]
    lengths = prompt_lengths(encoder, [], answers)
    n_prompt = lengths.n_prefix + PixelLimits().max_tokens + lengths.n_suffix - lengths.n_answer
    model = full_size_model(torch.bfloat16, torch.device("cpu"), encoder, config.n_layers, config.n_vision_blocks)
    model.config.text_config.max_position_embeddings = n_prompt + lengths.n_answer
    folder = layout.finetuned_model(_TRAINED)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    write_model(folder, model, None, prepared, labels)
    seconds = time.perf_counter() - started
    shutil.copytree(folder, layout.finetuned_model(_RUN), copy_function=os.link)
    short = layout.finetuned_model(_RUN) / "config.json"
    settings = json.loads(short.read_text())
    settings["text_config"]["max_position_embeddings"] = n_prompt + config.n_answer_tokens
    write_json(short, settings)
    return {"command": "save_pretrained", "seconds": round(seconds, 1), **size_of(folder)}


def measure(name: str, layout: Layout) -> dict[str, Any]:
    """Run a command; return its exit code, times, peak memory, and what it wrote."""
    log = layout.root / f"{name}.log"
    started = time.perf_counter()
    code, usage = run_logged(arguments_of(name, layout), log)
    seconds = time.perf_counter() - started
    lines = log.read_text().strip().splitlines()
    is_done = code in (0, _TIME_LIMIT_CODE)
    if not is_done:
        logger.warning("%s ended with %d: %s", name, code, "\n".join(lines[-5:]))
    return {
        "command": COMMANDS[name].format(base="MODEL", model="MODEL", image="IMAGE", exports="EXPORTS"),
        "exit_code": code,
        "seconds": round(seconds, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_gib": usage.ru_maxrss / 2**20,
        "last_line": (lines[-1] if lines else "").replace(f"{layout.root}/", "").replace(str(layout.root), "FOLDER"),
        **(results_of(name, layout) if is_done else {}),
    }


def arguments_of(name: str, layout: Layout) -> list[str]:
    """Return the command line of a command."""
    known = {
        "base": layout.finetuned_model(_TRAINED),
        "model": layout.finetuned_model(_RUN),
        "image": layout.root / chat.read_dataset(layout, "test")[0].image,
        "exports": layout.root / "models" / "exported",
    }
    stage, *arguments = COMMANDS[name].format(**known).split()
    return [sys.executable, str(REPOSITORY / "src" / f"{stage}.py"), "--root", str(layout.root), *arguments]


def run_logged(arguments: list[str], log: Path) -> tuple[int, Any]:
    """Run a process with its output in a file; return its exit code and its use of resources."""
    with log.open("w") as output:
        actions = [(os.POSIX_SPAWN_DUP2, output.fileno(), 1), (os.POSIX_SPAWN_DUP2, output.fileno(), 2)]
        process = os.posix_spawn(arguments[0], arguments, os.environ, file_actions=actions)
        _, status, usage = os.wait4(process, 0)
    return os.waitstatus_to_exitcode(status), usage


def results_of(name: str, layout: Layout) -> dict[str, Any]:
    """Return the results of a command that has ended as it should, from the files that it wrote."""
    found: dict[str, Any] = size_of(layout.root / _WRITTEN[name]) if name in _WRITTEN else {}
    if name.startswith("plan"):
        found |= plan_of(layout)
    if name in ("export-bf16", "export-drop2"):
        found |= comparison_of(layout.root / _WRITTEN[name])
    if name.startswith(("zero-shot", "load")):
        found |= answers_of(name, layout)
    return found


def answers_of(name: str, layout: Layout) -> dict[str, Any]:
    """Return what the answers on test are, and how many of them have the text that the original model generates."""
    shutil.copyfile(layout.zero_shot / "predictions.jsonl", layout.root / f"{name}.jsonl")
    answers, originals = (
        {row["image_id"]: row for row in map(json.loads, (layout.root / f"{one}.jsonl").read_text().splitlines())}
        for one in (name, "zero-shot-generate")
    )
    return {
        "answers": len(answers),
        "answer_tokens": [row["n_new_tokens"] for row in answers.values()],
        "statuses": dict(Counter(row["status"] for row in answers.values())),
        "same_text_as_original": sum(row["text"] == originals[image]["text"] for image, row in answers.items()),
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
    """Return the number of answers on val that the export changes, the layers, and the speed of both models."""
    found = json.loads((folder / "export.json").read_text())
    compared = found["evaluation"]["comparison"]
    return {
        "n_val": compared["n"],
        "n_other_answers": compared["n_other_answers"],
        "n_layers": found["n_layers"],
        "dropped": found["dropped_layers"],
        "images_per_second": [found["evaluation"][one]["images_per_second"] for one in ("run", "export")],
    }


def size_of(folder: Path) -> dict[str, Any]:
    """Return the bytes of the weights in a folder and below it."""
    return {"safetensors_bytes": sum(path.stat().st_size for path in folder.rglob("*.safetensors"))}


def record(config: Config, name: str, row: dict[str, Any]) -> None:
    """Write a row to the results; they are read again, since another folder's commands may have written to them."""
    found = json.loads(config.out.read_text()) if config.out.is_file() else {}
    shapes: dict[str, dict[str, Any]] = found.get("shapes", {})
    rows = shapes.setdefault(f"{config.n_layers} layers, {config.n_vision_blocks} vision blocks", {})
    rows[name] = row | {"load": os.getloadavg()[0], "git_commit": git_commit()}
    logger.info("%s: %s", name, rows[name])
    settings = {"images": _N_IMAGES, "threads": torch.get_num_threads()}
    write_json(config.out, {"device": device_name(default_device()), **settings, "shapes": shapes, **environment()})


def main() -> None:
    """Write dataset and checkpoints if they are missing, and run the commands."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = tyro.cli(Config, description=__doc__)
    config.folder.mkdir(parents=True, exist_ok=True)
    layout = Layout(config.folder.resolve())
    if not (layout.finetuned_model(_RUN) / "config.json").is_file():
        build_dataset(config, layout)
        # In its own process, which returns the memory of the weights.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            record(config, "checkpoint", pool.submit(write_checkpoints, config, layout).result())
    for name in config.commands:
        record(config, name, measure(name, layout))


if __name__ == "__main__":
    main()

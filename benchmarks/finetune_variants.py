"""The fine-tuning variants that finetune_speed.py compares, each as an optimizer step on the same images."""

import itertools
import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from full_size import full_size_model
from skincare.labels import skincare_labels
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.freezing import freeze, trainable_modules
from skincare.modeling.loading import load_model, load_processor
from skincare.modeling.losses import LossInputs, input_losses, loss_inputs
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.modeling.settings import PixelLimits, Trainable
from skincare.modeling.vision_features import LoadedImages, VisionFeatures
from skincare.paths import TINY_MODEL
from skincare.prompts import user_messages
from skincare.sample import drawing
from skincare.training import gradient_checkpointing
from skincare.training.compilation import compile_layers
from skincare.training.prefetch import Prefetcher

ANSWER: Final = "Moisturiser"


@dataclass(frozen=True)
class Setting:
    """The settings that all variants share."""

    folder: Path
    names: list[str]
    device: torch.device
    # Dtype of computation, and of frozen weights where a variant stores them in it.
    dtype: torch.dtype
    n_steps: int
    is_tiny: bool


@dataclass(frozen=True)
class PlainLoop:
    """Options of a plain training loop; the defaults are those of the reference experiment."""

    trains_embedding: bool = True
    frozen_in_fp32: bool = True
    one_at_a_time: bool = True
    checkpointing: bool = True
    hooks: bool = True
    all_logits: bool = True


# Each variant changes one option of the previous one, the first one of the reference.
_STEPS: Final[dict[str, dict[str, Any]]] = {
    "frozen_embedding": {"trains_embedding": False},
    "frozen_in_bf16": {"frozen_in_fp32": False},
    "together": {"one_at_a_time": False},
    "no_hooks": {"hooks": False},
    "no_checkpointing": {"checkpointing": False},
    "answer_logits": {"all_logits": False},
}
_LOOPS: Final = itertools.accumulate(
    _STEPS.values(), lambda options, change: replace(options, **change), initial=PlainLoop()
)
LADDER: Final[dict[str, PlainLoop]] = dict(zip(("reference", *_STEPS), _LOOPS, strict=True))


def flop_counter() -> FlopCounterMode:
    """Return a FLOP counter that supports attention on the CPU and grouped-query attention.

    torch's own formulas reject the latter before 2.14; these count the same products.
    """
    aten = torch.ops.aten

    def forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        n_scores = query[0] * query[1] * query[2] * key[2]
        return 2 * n_scores * (query[3] + value[3])

    def backward(_gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        # Recomputed scores; gradients of query and key from those of the scores; of scores and value from the output's.
        n_scores = query[0] * query[1] * query[2] * key[2]
        return 2 * n_scores * (3 * query[3] + 2 * value[3])

    kernels = ("flash_attention", "efficient_attention", "cudnn_attention", "flash_attention_for_cpu")
    names = [f"_scaled_dot_product_{kernel}" for kernel in kernels]
    mapping = {getattr(aten, name): forward for name in names}
    mapping |= {getattr(aten, f"{name}_backward"): backward for name in names}
    return FlopCounterMode(display=False, custom_mapping=mapping)


def build(setting: Setting, dtype: torch.dtype) -> tuple[PromptEncoder, Any]:
    """Return the processor and a model: full size with random weights, or the embedded one."""
    encoder = PromptEncoder(load_processor(TINY_MODEL, PixelLimits()), skincare_labels())
    if not setting.is_tiny:
        return encoder, full_size_model(dtype, setting.device, encoder)
    model = load_model(TINY_MODEL, setting.device).to(dtype)
    model.config.dtype = dtype
    return encoder, model


def images(folder: Path, n_images: int) -> list[str]:
    """Write drawn images of 600 x 600 pixels; return their names."""
    names = []
    for i in range(n_images):
        rng = random.Random(i)
        image = drawing.draw(drawing.random_packaging(rng), drawing.View(), 600, "BENCH").image
        names.append(f"pack_{10_000_000 + i}_1.jpg")
        image.save(folder / names[-1], quality=92)
    return names


def plain(setting: Setting, options: PlainLoop) -> Callable[[], None]:
    """Return a step with the forward pass of transformers."""
    encoder, model = build(setting, torch.float32 if options.frozen_in_fp32 else setting.dtype)
    parameters = list(freeze(model, Trainable()).values())
    if options.trains_embedding:
        parameters.append(model.get_input_embeddings().weight.requires_grad_(True))
    if options.checkpointing and options.hooks:
        model.gradient_checkpointing_enable()
    elif options.checkpointing:
        gradient_checkpointing.enable_checkpointing(model)
    model.train()
    optimizer = torch.optim.AdamW(parameters, lr=5e-7, weight_decay=0.01)
    n_answer = len(encoder.answer_tokens(ANSWER))

    def step() -> None:
        for names in [[name] for name in setting.names] if options.one_at_a_time else [setting.names]:
            inputs = _processed(encoder, [Image.open(setting.folder / name) for name in names]).to(setting.device)
            if not options.all_logits:
                inputs["logits_to_keep"] = n_answer + 1
                inputs["shift_labels"] = functional.pad(inputs["labels"][:, -n_answer:], (0, 1), value=-100)
            with torch.autocast(setting.device.type, torch.bfloat16, enabled=setting.dtype == torch.bfloat16):
                loss = model(**inputs).loss * len(names) / len(setting.names)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _processed(encoder: PromptEncoder, images: list[Image.Image]) -> Any:
    """Return the processor's inputs with labels on the answer, as in public examples."""
    text = encoder.processor.apply_chat_template(
        user_messages(encoder.labels), add_generation_prompt=True, tokenize=False
    )
    full = f"{text}{ANSWER}<|im_end|>"
    inputs = encoder.processor(text=[full] * len(images), images=images, return_tensors="pt", padding=True)
    labels = inputs["input_ids"].clone()
    labels[:, : -len(encoder.answer_tokens(ANSWER))] = -100
    inputs["labels"] = labels
    return inputs


def ours(setting: Setting, *, cached: bool, ahead: bool = False, compiled: bool = False) -> Callable[[], None]:
    """Return a step of finetune.py, with vision features from the cache or computed in the step.

    ahead: the images of the next step are loaded in a background thread; compiled: as with `finetune.py --compile`.
    """
    encoder, model = build(setting, setting.dtype)
    parameters = freeze(model, Trainable())
    network = CachedVLM(model)
    network.train()
    vision_features = VisionFeatures(network, encoder, setting.folder, setting.folder / "cache" if cached else None)
    if compiled and not compile_layers(network, PixelLimits().max_tokens):
        raise RuntimeError("torch.compile does not work here; the warning says why")
    optimizer = torch.optim.AdamW(parameters.values(), lr=5e-7, weight_decay=0.01)

    def load(names: tuple[str, ...]) -> tuple[LoadedImages, LossInputs]:
        images = vision_features.load(names, [] if cached else [lambda image: image] * len(names))
        return images, loss_inputs(network, encoder, "none", images.grids, [ANSWER] * len(names))

    loader, names = Prefetcher(load), tuple(setting.names)

    def step() -> None:
        images, inputs = loader.take(names)
        features = vision_features.compute(images)
        if ahead:
            loader.start(names)
        input_losses(network, "none", inputs, features).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 0.5)
        optimizer.step()
        optimizer.zero_grad()

    return step


def trainer(setting: Setting) -> tuple[list[float], int]:
    """Run Hugging Face Trainer; return the seconds of its timed steps and the operations of the first."""
    from transformers import Trainer, TrainingArguments

    encoder, model = build(setting, setting.dtype)
    model, names, folder = _three_modules(model), setting.names, setting.folder
    rows = [{"name": names[i % len(names)]} for i in range(len(names) * (setting.n_steps + 1))]
    arguments = TrainingArguments(**_arguments(setting), remove_unused_columns=False)
    clock = _clock(setting.device)
    Trainer(
        model, arguments, train_dataset=rows, callbacks=[clock],
        data_collator=lambda batch: dict(_processed(encoder, [Image.open(folder / row["name"]) for row in batch])),
    ).train()  # fmt: skip
    return clock.seconds(), clock.n_flop


def sft_trainer(setting: Setting) -> tuple[list[float], int]:
    """Run TRL's SFTTrainer; return the seconds of its timed steps and the operations of the first."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    encoder, model = build(setting, setting.dtype)
    model, names = _three_modules(model), setting.names
    system, user = user_messages(encoder.labels)
    user = {"role": "user", "content": [{"type": "image"}, user["content"][1]]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]}
    images = [Image.open(setting.folder / name).convert("RGB") for name in names]
    rows = Dataset.from_list([
        {"prompt": [system, user], "completion": [answer], "images": [images[i % len(images)]]}
        for i in range(len(names) * (setting.n_steps + 1))
    ])  # fmt: skip
    clock = _clock(setting.device)
    SFTTrainer(
        model, args=SFTConfig(**_arguments(setting), max_length=None), train_dataset=rows,
        processing_class=encoder.processor, callbacks=[clock],
    ).train()  # fmt: skip
    return clock.seconds(), clock.n_flop


def _three_modules(model: Any) -> Any:
    model.requires_grad_(False)
    for module in trainable_modules(model, Trainable()).values():
        module.requires_grad_(True)
    return model


def n_loading_processes(device: torch.device) -> int:
    """Return how many processes load batches for the trainers: the documented way to keep a GPU busy.

    They hand batches over in shared memory, of which containers may have too little.
    """
    shared_memory = Path("/dev/shm")  # noqa: S108
    has_memory = shared_memory.is_dir() and shutil.disk_usage(shared_memory).free > 4 * 2**30
    return min(4, os.cpu_count() or 1) if device.type == "cuda" and has_memory else 0


def _arguments(setting: Setting) -> dict[str, Any]:
    return {
        "output_dir": str(setting.folder / "out"), "per_device_train_batch_size": len(setting.names),
        "max_steps": setting.n_steps + 1, "bf16": setting.dtype == torch.bfloat16,
        "use_cpu": setting.device.type == "cpu", "report_to": "none", "save_strategy": "no", "logging_strategy": "no",
        "disable_tqdm": True, "dataloader_pin_memory": setting.device.type == "cuda",
        "dataloader_num_workers": n_loading_processes(setting.device),
    }  # fmt: skip


def _clock(device: torch.device) -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        """Counts the operations of the first step and records the end of each; the first step is not timed."""

        def __init__(self) -> None:
            self.ends: list[float] = []
            self.counter = flop_counter()
            self.n_flop = 0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if not self.ends:
                self.counter.__enter__()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if device.type == "cuda":
                torch.cuda.synchronize()
            if not self.ends:
                self.counter.__exit__(None, None, None)
                self.n_flop = self.counter.get_total_flops()
            self.ends.append(time.perf_counter())

        def seconds(self) -> list[float]:
            return [after - before for before, after in zip(self.ends, self.ends[1:], strict=False)]

    return Clock()

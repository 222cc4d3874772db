"""Planning of a run before any weight is loaded: its memory, its batch size and the disk space of its image cache."""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from skincare.files import write_json
from skincare.inference.decoders import max_new_tokens
from skincare.labels import Labels
from skincare.modeling import qwen_tokens
from skincare.modeling.families.registry import published_model
from skincare.modeling.loading import default_device, load_config, load_processor, memory_capacity
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.paths import TINY_MODEL, Layout
from skincare.runlog import Summary
from skincare.training import answer_lengths, memory_plan
from skincare.training.compilation import length_multiple
from skincare.training.memory_plan import MemoryPlan
from skincare.training.recipes import Recipe
from skincare.training.run_settings import RunSettings
from skincare.training.run_spec import RunSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PromptLengths:
    """Token counts of the longest prompt: before its image, and after it with question, hint, answer and end token.

    n_answer: those of the longest answer with its end token, which are part of `n_suffix`; n_varying: the part of
    `n_suffix` by which prompts can differ, which is the hint and what an answer has more than a label.
    """

    n_prefix: int
    n_suffix: int
    n_answer: int = 0
    n_varying: int = 0


def plan_run(spec: RunSpec, layout: Layout) -> Summary:
    """Log the plan of a run and write it to log/finetune_plan.json; its dataset may be empty."""
    settings, hints, answers = spec.settings, hints_of(spec), answers_of(spec)
    known = published_model(settings.model)
    if known and not Path(settings.model).is_dir():
        family, published = known
        config = AutoConfig.for_model(family.model_type, **published.config)
        lengths = _known_prompt_lengths(hints, spec.data.labels, answers)
    else:
        encoder = PromptEncoder(load_processor(settings.model, settings.limits), spec.data.labels)
        config, lengths = load_config(settings.model), prompt_lengths(encoder, hints, answers)
    plan = plan_memory(settings, spec.recipe, config, lengths)
    is_fp32 = config.dtype == torch.float32
    cache = _plan_cache(spec, plan.cache_bytes_per_image, is_fp32=is_fp32)
    disk = cache | _plan_checkpoints(spec.recipe, plan, is_fp32=is_fp32)
    write_json(layout.finetune_plan, dataclasses.asdict(plan) | disk)
    for line in memory_plan.describe(plan):
        logger.info("%s", line)
    if cache:
        n_images, size_gb = cache["n_cached_images"], cache["cache_bytes"] / 1e9
        logger.info("image cache of this dataset: %d images, at most %.2f GB", n_images, size_gb)
    logger.info(
        "checkpoints: at most %.2f GB; trained model: at most %.2f GB",
        disk["checkpoint_bytes"] / 1e9, disk["model_bytes"] / 1e9,
    )  # fmt: skip
    fits = "fits" if plan.fits else "DOES NOT FIT"
    total, capacity = plan.total_bytes / memory_plan.GIB, plan.capacity_bytes / memory_plan.GIB
    return Summary(headline=f"{total:.1f} of {capacity:.1f} GiB: {fits}, written to {layout.finetune_plan}")


def plan_memory(
    settings: RunSettings, recipe: Recipe, config: Any, lengths: PromptLengths, n_shards: int = 1
) -> MemoryPlan:
    """Plan the memory of one process for images of the largest allowed size and the longest prompt."""
    merge_size = config.vision_config.spatial_merge_size
    grid = (1, merge_size, settings.max_tokens * merge_size)
    n_tokens = lengths.n_prefix + settings.max_tokens + lengths.n_suffix
    multiple = length_multiple(settings.max_tokens + lengths.n_varying) if settings.compile else 1
    capacity = settings.vram_gb * memory_plan.GIB if settings.vram_gb else memory_capacity(default_device())
    return memory_plan.plan(
        config, recipe.trainable, n_tokens, grid, recipe.effective_batch_size, int(capacity),
        recipe.optimizer, n_shards, recipe.adapter, lengths.n_prefix, n_answer=lengths.n_answer,
        length_multiple=multiple, has_average=recipe.average_decay > 0,
    )  # fmt: skip


def prompt_lengths(encoder: PromptEncoder, hints: Sequence[str], answers: Sequence[str] = ()) -> PromptLengths:
    """Return the token counts of the prompt with the longest hint and the longest answer; by default, label."""
    hint = longest_hint(encoder, hints)
    label = answer_lengths.longest(encoder, encoder.labels.names)
    answer = answer_lengths.longest(encoder, answers) if answers else label
    n_suffix, n_plain = encoder.row_length(0, hint, answer), encoder.row_length(0, "", label)
    return PromptLengths(len(encoder.prompt_prefix), n_suffix, len(encoder.answer_tokens(answer)), n_suffix - n_plain)


def longest_hint(encoder: PromptEncoder, hints: Sequence[str]) -> str:
    """Return the hint with the most tokens; empty without hints."""
    return max(sorted(set(hints)), key=lambda hint: len(encoder.question_tokens(hint)), default="")


def hints_of(spec: RunSpec) -> list[str]:
    """Return the hints of the training and validation images."""
    return [example.hint for example in (*spec.data.train, *spec.data.val) if example.hint]


def answers_of(spec: RunSpec) -> list[str]:
    """Return the structured answers of the training and validation images; empty where the answers are labels."""
    return [example.product for example in (*spec.data.train, *spec.data.val) if example.product]


def _known_prompt_lengths(hints: Sequence[str], labels: Labels, answers: Sequence[str] = ()) -> PromptLengths:
    """Return the token counts of a published model's prompt, without its tokenizer; upper bounds with a hint."""
    # The embedded model's processor has the same chat template.
    encoder = PromptEncoder(load_processor(TINY_MODEL), labels)
    before, _, after = encoder.prompt_text.partition(encoder.processor.image_token)
    n_hint = max((len(f"\n{hint}".encode()) for hint in hints), default=0)
    n_label = qwen_tokens.count_tokens(max(labels.names, key=len)) + 1
    n_answer = n_label
    if answers:  # a longer one than is allowed is an error before the first step
        n_answer = min(max(map(qwen_tokens.count_tokens, answers)) + 1, max_new_tokens(labels))
    n_suffix = qwen_tokens.count_tokens(after) + n_hint + n_answer
    return PromptLengths(qwen_tokens.count_tokens(before), n_suffix, n_answer, n_hint + n_answer - n_label)


def _plan_checkpoints(recipe: Recipe, plan: MemoryPlan, *, is_fp32: bool) -> dict[str, int]:
    """Return upper bounds of the disk space of a run's checkpoints and of its trained model.

    The best and the last checkpoint are kept while the next one is written; each has trained tensors and optimizer
    states. In the model, tensors that training changes are in fp32; LoRA changes those of all language layers.
    """
    n_bytes = 4 if is_fp32 or recipe.adapter else 2
    return {
        "checkpoint_bytes": 3 * (4 * plan.n_trainable + plan.optimizer_bytes),
        "model_bytes": n_bytes * plan.n_parameters + (4 - n_bytes) * plan.n_trainable,
    }


def _plan_cache(spec: RunSpec, bytes_per_image: int, *, is_fp32: bool) -> dict[str, int]:
    """Return the size of the image cache; empty without a dataset."""
    if not any((spec.data.train, spec.data.val, spec.data.test)):
        return {}
    if not spec.settings.cache_images:
        return {"n_cached_images": 0, "cache_bytes": 0}
    by_training, by_export = _n_cached_images(spec, is_fp32=is_fp32)
    n_in_bf16 = by_training + by_export * (1 if is_fp32 else 2)
    return {"n_cached_images": by_training + by_export, "cache_bytes": n_in_bf16 * bytes_per_image}


def _n_cached_images(spec: RunSpec, *, is_fp32: bool) -> tuple[int, int]:
    """Return the number of images whose vision features training caches, and that of the exported model.

    Unless the checkpoint `is_fp32`, the exported model is loaded in fp32: its features are separate and twice as large.
    """
    trainable, data = spec.recipe.trainable, spec.data
    if trainable.everything:
        return 0, len(data.val) + len(data.test)
    # Augmented training images are not cached, except the few of the pre-flight checks.
    by_training = len(data.val) + (len(data.train) if spec.recipe.augmentation == "none" else 0)
    # The exported model caches the output of all but the last vision block, as does a run that trains only that block.
    is_shared = is_fp32 and trainable.n_vision_blocks == 1
    return by_training, len(data.test) + (0 if is_shared else len(data.val))

"""One training run from its settings to its tested model; finetune.py and compare_recipes.py are made of it."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import torch
import tyro

from skincare.categories import CATEGORIES
from skincare.dataset import hints
from skincare.dataset.chat import Example
from skincare.dataset.dataset_source import image_files
from skincare.errors import StageError
from skincare.modeling import freezing
from skincare.modeling.batches import PromptEncoder
from skincare.modeling.model import default_device, load_config, load_model, load_processor, memory_capacity
from skincare.modeling.recogniser import Recogniser
from skincare.modeling.settings import DEFAULT_MODEL, PixelLimits
from skincare.modeling.vision_features import VisionFeatures
from skincare.paths import Layout
from skincare.runlog import to_plain
from skincare.training import adapters, memory_plan, model_export, optimizers, run_identity
from skincare.training.checkpoints import trained_tensors
from skincare.training.distributed import World, copy_full_tensor
from skincare.training.gradient_checkpointing import enable_checkpointing
from skincare.training.loop import ExecutionSettings, Trainer
from skincare.training.memory_plan import MemoryPlan
from skincare.training.model_export import ExportStatistics
from skincare.training.recipes import Recipe, get_recipe

logger = logging.getLogger(__name__)

# Those that treat every weight alike, wherever it lies.
_SHARDED_OPTIMIZERS: Final = ("adamw", "lion")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a run can be told beside its recipe."""

    model: str = DEFAULT_MODEL
    """Model of the Hugging Face hub, or a local folder."""
    max_epochs: int | None = None
    """Fewer or more epochs than the recipe's."""
    learning_rate: float | None = None
    """Another peak learning rate than the recipe's."""
    min_tokens: int = 64
    """Least visual tokens of an image (28 x 28 pixels each)."""
    max_tokens: int = 128
    """Most visual tokens of an image."""
    vram_gb: float | None = None
    """Memory to plan for, in GiB; what the machine has if left out."""
    micro_batch_size: int | None = None
    """Images per forward pass, accumulated to the recipe's batch; the plan's choice if left out."""
    gradient_checkpointing: bool | None = None
    """Recompute activations instead of keeping them; the plan's choice if left out."""
    attention: Literal["sdpa", "flash_attention_2", "eager"] = "sdpa"
    """Kernel of the language layers; flash_attention_2 where flash-attn is installed."""
    dataset: str = ""
    """Folder or URL of shards that export_dataset.py wrote, to train from instead of clean_dataset/."""
    cache_images: Annotated[bool, tyro.conf.arg(aliases=("--no-cache-pictures",))] = True
    """Keep the frozen vision prefix's output on disk (.cache/vision)."""

    @property
    def limits(self) -> PixelLimits:
        """Return the limits of an image's size."""
        return PixelLimits(self.min_tokens, self.max_tokens)


def recipe_with_overrides(name: str, settings: RunSettings) -> Recipe:
    """Return a recipe with what the settings change in it."""
    changes = {key: getattr(settings, key) for key in ("max_epochs", "learning_rate")}
    return dataclasses.replace(get_recipe(name), **{key: v for key, v in changes.items() if v is not None})


def check_requirements(settings: RunSettings, recipe: Recipe) -> None:
    """Raise StageError, before anything is loaded, where a recipe's libraries or the model are not to be had."""
    load_config(settings.model, settings.attention)
    adapters.quantisation_config(recipe.adapter)
    optimizers.require(recipe.optimizer)


def plan_memory(
    settings: RunSettings, recipe: Recipe, encoder: PromptEncoder, examples: Sequence[Example] = (), n_shards: int = 1
) -> MemoryPlan:
    """Plan for the largest image that the limits allow, the longest hint and a long answer, in one process."""
    grid = (1, encoder.merge_size, settings.max_tokens * encoder.merge_size)
    hint = longest_hint(encoder, examples)
    n_tokens = encoder.batch([grid], [max(CATEGORIES, key=len)], hints=[hint]).input_ids.shape[1]
    capacity = settings.vram_gb * memory_plan.GIB if settings.vram_gb else memory_capacity(default_device())
    return memory_plan.plan(
        load_config(settings.model), recipe.trainable, n_tokens, grid, recipe.effective_batch_size, int(capacity),
        optimizers.state_bytes_per_weight(recipe.optimizer), n_shards, recipe.adapter, len(encoder.opening),
    )  # fmt: skip


def longest_hint(encoder: PromptEncoder, examples: Sequence[Example]) -> str:
    """Return the examples' hint of most tokens."""
    hints = sorted({one.hint for one in examples if one.hint})
    return max(hints, key=lambda hint: len(encoder.question_tokens(hint)), default="")


def n_cached_images(
    recipe: Recipe, train: Sequence[Example], val: Sequence[Example], test: Sequence[Example], *, is_fp32: bool
) -> tuple[int, int]:
    """Return how many images' states a run leaves on disk, in training and of the exported model.

    That is loaded in fp32, so that its states are other ones, twice as large, unless the checkpoint `is_fp32` itself.
    """
    trainable = recipe.trainable
    if trainable.everything:
        return 0, len(val) + len(test)
    # Of augmented images only the few of the pre-flight are kept.
    by_training = len(val) + (len(train) if recipe.augmentation == "none" else 0)
    # The exported model keeps what all but the last vision block give, and so does a run that trains only that block.
    is_shared = is_fp32 and trainable.n_vision_blocks == 1
    return by_training, len(test) + (0 if is_shared else len(val))


def prepare(
    settings: RunSettings, recipe: Recipe, seed: int, layout: Layout, name: str, train: Sequence[Example],
    val: Sequence[Example], world: World = World(),  # noqa: B008  frozen
) -> Trainer:  # fmt: skip
    """Load, freeze, fill the image cache and prove on the first batch that the right things would be learnt."""
    if world.is_sharded and (recipe.adapter or recipe.optimizer not in _SHARDED_OPTIMIZERS):
        raise StageError(
            f"--use_fsdp takes recipes without LoRA and with {' or '.join(_SHARDED_OPTIMIZERS)}; launch without it"
        )
    encoder = PromptEncoder(load_processor(settings.model, settings.limits))
    device = default_device()
    quantisation = adapters.quantisation_config(recipe.adapter)
    model = load_model(settings.model, device, settings.attention, quantisation)
    recogniser, parameters = _trainable_recogniser(model, recipe, seed)
    plan = plan_memory(settings, recipe, encoder, [*train, *val], world.size if world.is_sharded else 1)
    if plan.gradient_checkpointing if settings.gradient_checkpointing is None else settings.gradient_checkpointing:
        enable_checkpointing(model)
    if not plan.fits:
        for line in memory_plan.describe_misfit(plan):
            logger.warning("%s", line)
    speed = ExecutionSettings(micro_batch_size=settings.micro_batch_size or plan.micro_batch_size)
    logger.info(
        "%s of %s parameters learn: %s",
        f"{freezing.count(parameters.values()):,}", f"{freezing.count(model.parameters()):,}", recipe.description,
    )  # fmt: skip
    files = image_files(settings.dataset, layout)
    images = VisionFeatures(recogniser, encoder, files, layout.vision_cache if settings.cache_images else None)
    if not world.is_writer:
        world.barrier()  # for the writer to have filled the folder
    # Augmented images are new in every epoch: nothing of them is worth keeping.
    images.fill([one.image for one in (*val, *(train if recipe.augmentation == "none" else ()))])
    if world.is_writer:
        world.barrier()
    identity = run_identity.compute(settings.model, encoder, recipe, seed, train, val, files)
    # Not before the cache is filled and hashed, which one process does alone.
    parameters = dict(world.shard(recogniser, parameters))
    training = Trainer(
        images, parameters, recipe, train, val, seed, speed, layout.training_state(name), identity, world
    )
    # With hints, also the longest of them: a prompt that is too long must not be met in the middle of a run.
    longest = longest_hint(encoder, train)
    training.check(sorted(train, key=lambda one: one.hint != longest))
    return training


def _trainable_recogniser(model: Any, recipe: Recipe, seed: int) -> tuple[Recogniser, dict[str, torch.nn.Parameter]]:
    """Put in LoRA and head where the recipe has them, freeze the rest; return also what learns, by name."""
    if recipe.adapter:
        adapters.add_lora(model, recipe.adapter, seed)
    parameters = freezing.freeze(model, recipe.trainable) | adapters.enable_lora_training(model)
    recogniser = Recogniser(model)
    if recipe.head != "none":
        parameters |= recogniser.add_head()
    if not parameters:
        raise StageError("The recipe trains nothing")
    return recogniser, parameters


def export(training: Trainer, settings: RunSettings, folder: Path) -> ExportStatistics:
    """Write the best epoch's model: the checkpoint anew with what was learnt put in, LoRA added into its weights.

    Not the model that was trained: of that a process may hold a share, or a quantised form that rounds more than a
    run of LoRA changes.
    """
    model = load_model(settings.model, torch.device("cpu"))
    found = ExportStatistics(model.config.dtype)
    recogniser, parameters = _trainable_recogniser(model, training.recipe, training.seed)
    for name, tensor in trained_tensors(training.best_state()):
        # A weight under LoRA is counted when that is merged.
        if not name.startswith("classification_head.") and ".lora_" not in name and ".base_layer.weight" not in name:
            found.count(parameters[name].detach(), tensor)
        copy_full_tensor(tensor, parameters[name])
    adapters.merge_lora(model, found.count)
    if training.recipe.adapter:
        matrices = {name: parameter for name, parameter in parameters.items() if ".lora_" in name}
        modules = freezing.trainable_modules(model, training.recipe.trainable)
        base = to_plain(settings.model)
        adapters.save_adapter(folder / "adapter", training.recipe.adapter, matrices, modules, base)
    processor = load_processor(settings.model, settings.limits)
    found.is_fp32 = model_export.write_model(folder, model, recogniser.head, processor)
    hints.write_settings(folder, [one.hint for one in training.train])
    return found


def results(
    training: Trainer, name: str, recipe_name: str, settings: RunSettings, stop_reason: str
) -> Mapping[str, Any]:
    """Return what is to be known about a finished run."""
    recogniser, progress = training.images.recogniser, training.progress
    return {
        "run": name,
        "recipe": recipe_name,
        "model": settings.model,
        "decoder": training.decoder_name,
        "n_parameters": freezing.count(recogniser.model.parameters()),
        "n_trainable": freezing.count(training.parameters.values()),
        "trainable_modules": list(freezing.trainable_modules(recogniser.model, training.recipe.trainable)),
        "best_epoch": progress.best_epoch,
        "n_epochs": progress.epoch,
        "stop_reason": stop_reason,
        "training_seconds": round(sum(row["seconds"] for row in progress.history), 1),
        "recipe_settings": to_plain(training.recipe),
        "device": str(recogniser.device),
    }

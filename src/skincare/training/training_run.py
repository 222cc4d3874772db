"""Preparation of a training run from its specification, and export of its best epoch."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from skincare.dataset import hints
from skincare.errors import StageError
from skincare.inference.classifier import Classifier
from skincare.labels import check_same_labels
from skincare.modeling import freezing
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.loading import default_device, load_config, load_model, load_processor
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.paths import Layout
from skincare.runlog import to_plain
from skincare.training import adapters, answer_lengths, memory_plan, model_export, optimizers, planning, run_identity
from skincare.training.checkpoints import check_resumable, trained_tensors
from skincare.training.compilation import compile_layers
from skincare.training.distributed import World, copy_full_tensor
from skincare.training.execution import ExecutionSettings, TrainerFolders
from skincare.training.gradient_checkpointing import enable_checkpointing
from skincare.training.loop import Trainer
from skincare.training.memory_plan import MemoryPlan
from skincare.training.model_export import ExportStatistics
from skincare.training.planning import PromptLengths
from skincare.training.recipes import Recipe
from skincare.training.run_settings import RunSettings
from skincare.training.run_spec import RunSpec
from skincare.training.stopping import StopRequest

logger = logging.getLogger(__name__)

# Optimizers with elementwise updates, which do not depend on how tensors are sharded.
_SHARDED_OPTIMIZERS: Final = ("adamw", "lion")


def check_requirements(settings: RunSettings, recipe: Recipe) -> None:
    """Raise StageError, before anything is loaded, if the model or a library of the recipe is not available."""
    load_config(settings.model, settings.attention)
    adapters.quantisation_config(recipe.adapter)
    optimizers.require_library(recipe.optimizer)


def prepare(
    spec: RunSpec, layout: Layout, name: str, world: World = World(), stop: StopRequest | None = None,  # noqa: B008
    *, resumes: bool = False,
) -> Trainer:  # fmt: skip
    """Load and freeze the model, fill the image cache, and run the pre-flight checks; `name` is that of the folders.

    With `resumes`, raises StageError before any weight is loaded if the last checkpoint is of another run.
    """
    settings, recipe, data = spec.settings, spec.recipe, spec.data
    if world.is_sharded:
        _check_sharding(settings, recipe)
    check_same_labels(Path(settings.model), data.labels)
    encoder = PromptEncoder(load_processor(settings.model, settings.limits), data.labels)
    identity, state_folder = run_identity.compute(spec, encoder), layout.training_state(name)
    if resumes:
        check_resumable(state_folder, identity)
    quantisation = adapters.quantisation_config(recipe.adapter)
    model = load_model(settings.model, default_device(), settings.attention, quantisation)
    network, parameters = _trainable_network(model, recipe, spec.seed, len(data.labels))
    logger.info(
        "%s of %s parameters are trained: %s",
        f"{freezing.count(parameters.values()):,}", f"{freezing.count(model.parameters()):,}", recipe.description,
    )  # fmt: skip
    n_context = model.config.text_config.max_position_embeddings
    answer_lengths.check_fit(encoder, (*data.train, *data.val, *data.test), settings.max_tokens, n_context)
    lengths = planning.prompt_lengths(encoder, planning.hints_of(spec), planning.answers_of(spec))
    plan = _plan(spec, lengths, world)
    if plan.gradient_checkpointing if settings.gradient_checkpointing is None else settings.gradient_checkpointing:
        enable_checkpointing(model)
    execution = ExecutionSettings(micro_batch_size=settings.micro_batch_size or plan.micro_batch_size)
    classifier = Classifier(
        network, encoder, data.files, vision_cache=layout.vision_cache if settings.cache_images else None,
        batch_size=execution.eval_batch_size,
    )  # fmt: skip
    # Augmented training images differ in every epoch: their features are not cached.
    cached = (*data.val, *(data.train if recipe.augmentation == "none" else ()))
    _fill_cache(classifier, [one.image for one in cached], world)
    # After the cache is filled, which needs the whole model.
    parameters = dict(world.shard(network, parameters))
    folders = TrainerFolders(state_folder, layout.finetune_log(name))
    if settings.compile:
        compile_layers(network, settings.max_tokens + lengths.n_varying)
    trainer = Trainer(classifier, parameters, spec, execution, folders, identity, world, stop)
    # What is too long fails before training.
    trainer.check(answer_lengths.longest_first(encoder, data.train))
    return trainer


def _check_sharding(settings: RunSettings, recipe: Recipe) -> None:
    """Raise StageError for what sharded weights do not support."""
    if recipe.adapter or recipe.average_decay or recipe.optimizer not in _SHARDED_OPTIMIZERS:
        raise StageError(
            f"--use_fsdp supports recipes without LoRA, without a moving average of the weights, and with "
            f"{' or '.join(_SHARDED_OPTIMIZERS)}; launch without it"
        )
    if settings.compile:
        raise StageError("--use_fsdp does not support --compile; launch without it")


def _fill_cache(classifier: Classifier, images: Sequence[str], world: World) -> None:
    """Compute the vision features of images: the writer first, so that the others find its files."""
    if not world.is_writer:
        world.barrier()
    classifier.features.fill(images)
    if world.is_writer:
        world.barrier()


def _plan(spec: RunSpec, lengths: PromptLengths, world: World) -> MemoryPlan:
    """Return the memory plan of this process; log a warning if it does not fit."""
    config, n_shards = load_config(spec.settings.model), world.size if world.is_sharded else 1
    plan = planning.plan_memory(spec.settings, spec.recipe, config, lengths, n_shards)
    if not plan.fits:
        for line in memory_plan.describe_misfit(plan):
            logger.warning("%s", line)
    return plan


def _trainable_network(
    model: Any, recipe: Recipe, seed: int, n_labels: int
) -> tuple[CachedVLM, dict[str, torch.nn.Parameter]]:
    """Add the recipe's LoRA matrices and head, freeze the rest; return also the trainable parameters by name."""
    if recipe.adapter:
        adapters.add_lora(model, recipe.adapter, seed)
    parameters = freezing.freeze(model, recipe.trainable) | adapters.enable_lora_training(model)
    network = CachedVLM(model)
    if recipe.head != "none":
        parameters |= network.add_head(n_labels)
    if not parameters:
        raise StageError("The recipe has no trainable parameters")
    return network, parameters


def export(trainer: Trainer, folder: Path) -> ExportStatistics:
    """Write the best epoch's model: the base checkpoint with the trained tensors, LoRA merged.

    The base checkpoint is loaded again: the trained model may be sharded, or quantised, which rounds more than LoRA
    changes.
    """
    spec = trainer.spec
    model = load_model(spec.settings.model, torch.device("cpu"))
    statistics = ExportStatistics(model.config.dtype)
    network, parameters = _trainable_network(model, spec.recipe, spec.seed, len(spec.data.labels))
    for name, tensor in trained_tensors(trainer.best_state()):
        # Weights under LoRA are counted when LoRA is merged.
        if not name.startswith("classification_head.") and ".lora_" not in name and ".base_layer.weight" not in name:
            statistics.count(parameters[name].detach(), tensor)
        copy_full_tensor(tensor, parameters[name])
    adapters.merge_lora(model, statistics.count)
    if spec.recipe.adapter:
        matrices = {name: parameter for name, parameter in parameters.items() if ".lora_" in name}
        modules = freezing.trainable_modules(model, spec.recipe.trainable)
        base = to_plain(spec.settings.model)
        adapters.save_adapter(folder / "adapter", spec.recipe.adapter, matrices, modules, base)
    processor = load_processor(spec.settings.model, spec.settings.limits)
    statistics.is_fp32 = model_export.write_model(folder, model, network.head, processor, spec.data.labels)
    hints.write_settings(folder, [one.hint for one in spec.data.train])
    return statistics


def results(trainer: Trainer, name: str, stop_reason: str) -> Mapping[str, Any]:
    """Return the results of a finished run for its summary."""
    model, progress, spec = trainer.classifier.network.model, trainer.progress, trainer.spec
    return {
        "run": name,
        "recipe": spec.recipe_name,
        "model": spec.settings.model,
        "decoder": trainer.decoder_name,
        "n_parameters": freezing.count(model.parameters()),
        "n_trainable": freezing.count(trainer.parameters.values()),
        "trainable_modules": list(freezing.trainable_modules(model, spec.recipe.trainable)),
        "best_epoch": progress.best_epoch,
        "n_epochs": progress.epoch,
        "stop_reason": stop_reason,
        "training_seconds": trainer.seconds,
        "hint_kind": hints.kind_of(one.hint for one in spec.data.train),
        "recipe_settings": to_plain(spec.recipe),
        "device": str(trainer.classifier.network.device),
        "token_side_px": trainer.classifier.encoder.token_side_px,
        **_criterion(trainer),
    }


def _criterion(trainer: Trainer) -> dict[str, Any]:
    """Return what selected the epoch of structured answers; for categories it is the accuracy."""
    best = trainer.progress.best_document_anls
    return {} if best is None else {"criterion": "val_document_anls", "best_document_anls": best}

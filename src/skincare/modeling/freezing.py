"""Freezing: the trainable part of the model is selected as module objects, not by substrings of names, and counted.

The reference experiment selected by substring and so trained the tied embedding too: 334 M parameters, not 100 M.
"""

from typing import Any

import torch
from torch import nn

from skincare.errors import StageError
from skincare.modeling.families.registry import family_of
from skincare.modeling.settings import Trainable


def trainable_modules(model: Any, trainable: Trainable) -> dict[str, nn.Module]:
    """Return the trainable modules by their path in the model; an untied output layer is part of `everything`.

    Raises StageError if the model has fewer blocks or layers than `trainable` names.
    """
    if trainable.everything:
        is_tied = model.lm_head.weight is model.get_input_embeddings().weight
        return {"model": model.model} | ({} if is_tied else {"lm_head": model.lm_head})
    blocks, layers = model.model.visual.blocks, model.model.language_model.layers
    if not 0 <= trainable.n_vision_blocks <= len(blocks) or not 0 <= trainable.n_language_layers <= len(layers):
        raise StageError(f"{trainable} does not fit a model of {len(blocks)} vision blocks, {len(layers)} layers")
    chosen: dict[str, nn.Module] = {}
    for i in range(len(blocks) - trainable.n_vision_blocks, len(blocks)):
        chosen[f"model.visual.blocks.{i}"] = blocks[i]
    if trainable.merger:
        chosen["model.visual.merger"] = model.model.visual.merger
    for i in range(len(layers) - trainable.n_language_layers, len(layers)):
        chosen[f"model.language_model.layers.{i}"] = layers[i]
    return chosen


def freeze(model: Any, trainable: Trainable) -> dict[str, nn.Parameter]:
    """Make only the selected modules trainable, in fp32, and return their parameters by name.

    Frozen weights keep the checkpoint's dtype; steps of 5e-7 are rounded away in bf16. Raises StageError if the count
    is wrong for a published model of its family, or if `everything` leaves parameters out.
    """
    model.requires_grad_(False)
    for module in trainable_modules(model, trainable).values():
        module.requires_grad_(True)
        module.to(torch.float32)
    chosen = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    n_trainable, n_parameters = count(chosen.values()), count(model.parameters())
    if trainable.everything and n_trainable != n_parameters:
        raise StageError(f"{n_trainable:,} of {n_parameters:,} parameters would be trained, not everything")
    for published in family_of(model.config).models:
        n_expected = published.n_reference_trainable
        if n_parameters == published.n_parameters and trainable == Trainable() and n_trainable != n_expected:
            raise StageError(
                f"{n_trainable:,} parameters would be trained, not {n_expected:,}: is this {min(published.names)}?"
            )
    return chosen


def count(parameters: Any) -> int:
    """Return the number of elements, each tensor once even when two modules share it."""
    return sum({id(parameter): parameter.numel() for parameter in parameters}.values())

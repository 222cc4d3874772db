"""Checks on the first training batch, before any epoch: they turn silent failures of fine-tuning into errors.

Each check raises StageError. Together they take as long as one training step; weights and random state are restored.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from skincare.dataset.chat import Example
from skincare.errors import StageError
from skincare.inference.classifier import Classifier
from skincare.modeling.prompt_encoder import IGNORED, Batch, PromptEncoder
from skincare.modeling.settings import HeadUse
from skincare.prompts import with_hint
from skincare.training.distributed import full_tensor

logger = logging.getLogger(__name__)


def check(
    classifier: Classifier, parameters: Mapping[str, torch.nn.Parameter], examples: Sequence[Example],
    learning_rate: float, total_learning_rate: float, head_use: HeadUse = "none",
) -> None:  # fmt: skip
    """Check that a step on these examples updates exactly `parameters`, with exactly their answers as targets.

    `total_learning_rate` is the sum of the learning rates of all steps.
    """
    network, encoder = classifier.network, classifier.encoder
    network.zero_grad(set_to_none=True)  # left by a check that ran out of memory
    grids, features = classifier.features.get([example.image for example in examples])
    if any(one.requires_grad for one in features):
        raise StageError("The frozen prefix of the vision tower is part of the backward graph")
    categories, hints = [example.category for example in examples], [example.hint for example in examples]
    answers = [example.answer for example in examples]
    batch = encoder.batch(grids, answers, hints=hints, without_prefix=network.caches_prompt_prefix)
    check_prompt(encoder, batch, hints)
    check_length(network.model, batch)
    check_labels(encoder, batch, answers)
    network.train()
    classifier.losses(head_use, grids, features, categories, hints, answers).mean().backward()
    check_gradients(network.model, parameters)
    check_step(parameters, learning_rate)
    dtype = network.dtype
    of_model = {name: parameter for name, parameter in parameters.items() if not name.startswith("classification_head")}
    share = movable_fraction(of_model, total_learning_rate, dtype)
    network.zero_grad(set_to_none=True)
    logger.info(
        "pre-flight checks passed: prompt, labels, gradients of %d tensors, one step; the run can change %.1f %% of "
        "the weights by enough to show in %s",
        len(parameters), 100 * share, str(dtype).removeprefix("torch."),
    )  # fmt: skip


def check_prompt(encoder: PromptEncoder, batch: Batch, hints: Sequence[str] = ()) -> None:
    """Check that each prompt holds the question with its hint, and as many image tokens as its image's grid has."""
    questions = [with_hint(encoder.labels.question, hint) for hint in hints or [""] * len(batch.grids)]
    for ids, mask, grid, expected in zip(batch.input_ids, batch.attention_mask, batch.grids, questions, strict=True):
        text = encoder.tokenizer.decode(ids[mask.bool()], skip_special_tokens=False)
        if expected not in text:
            raise StageError(f"The prompt does not hold the question {expected!r}: {text[:200]!r}")
        n_image_tokens = int((ids == encoder.image_token_id).sum())
        if n_image_tokens != encoder.n_visual_tokens(grid) or n_image_tokens == 0:
            raise StageError(
                f"{n_image_tokens} image tokens for an image of {encoder.n_visual_tokens(grid)} visual tokens"
            )


def check_length(model: Any, batch: Batch) -> None:
    """Check that the prompts fit the model's context length."""
    n_tokens = len(batch.prompt_prefix) + batch.input_ids.shape[1]
    most = model.config.text_config.max_position_embeddings
    if n_tokens > most:
        raise StageError(
            f"A prompt of {n_tokens} tokens is longer than the model's context of {most}; allow fewer visual tokens, "
            "or shorter hints with `python src/build_dataset.py --hint-bytes`"
        )


def check_labels(encoder: PromptEncoder, batch: Batch, answers: Sequence[str]) -> None:
    """Check that the labels decode to exactly the answer and the end token."""
    for labels, answer in zip(batch.labels, answers, strict=True):
        target = encoder.tokenizer.decode(labels[labels != IGNORED], skip_special_tokens=False)
        if target != f"{answer}<|im_end|>":
            raise StageError(f"The labels decode to {target!r} instead of {answer!r}")


def check_gradients(model: torch.nn.Module, parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """Check that all trainable modules have non-zero gradients, and no other parameter has a gradient.

    A single tensor may have a zero gradient, as the bias of a key projection always has.
    """
    for name, parameter in model.named_parameters():
        if name not in parameters and parameter.grad is not None:
            raise StageError(f"{name} is frozen but has a gradient")
    dead = [name for name, parameter in parameters.items() if parameter.grad is None]
    if dead:
        raise StageError(f"{len(dead)} trainable tensors have no gradient, such as {dead[0]}")
    norms: dict[str, float] = {}
    for name, parameter in parameters.items():
        assert parameter.grad is not None
        module = _owner(name)
        norms[module] = norms.get(module, 0.0) + full_tensor(parameter.grad.float().norm()).item()
    for module, norm in norms.items():
        if not norm > 0 or norm == float("inf"):
            raise StageError(f"{module}: its gradient has norm {norm}")


def check_step(parameters: Mapping[str, torch.nn.Parameter], learning_rate: float) -> None:
    """Check that an AdamW step changes every trainable module; the weights are restored.

    Works on one tensor at a time, to avoid a copy and an optimizer state of all.
    """
    changed = {_owner(name) for name, parameter in parameters.items() if _step_changes(parameter, learning_rate)}
    unchanged = {_owner(name) for name in parameters} - changed
    if unchanged:
        raise StageError(f"A step of {learning_rate} changes nothing in {', '.join(sorted(unchanged))}")


def _step_changes(parameter: torch.nn.Parameter, learning_rate: float) -> bool:
    before = parameter.detach().clone()
    try:
        torch.optim.AdamW([parameter], lr=learning_rate).step()
        return bool(full_tensor((parameter != before).sum()) > 0)
    finally:
        with torch.no_grad():
            parameter.copy_(before)


def movable_fraction(
    parameters: Mapping[str, torch.nn.Parameter], total_learning_rate: float, dtype: torch.dtype
) -> float:  # fmt: skip
    """Return the fraction of weights that a run can change by enough to become another number of a dtype.

    AdamW moves a weight by about the learning rate per step at most, so by `total_learning_rate` in all; a change of
    less than half the distance to the next number is rounded away.
    """
    if dtype == torch.float32:
        return 1.0
    mantissa_bits = -round(math.log2(torch.finfo(dtype).eps))
    n_moving = n_weights = 0
    for parameter in parameters.values():
        _, exponents = torch.frexp(full_tensor(parameter.detach()).float())
        n_moving += int((torch.exp2(exponents.float() - 2 - mantissa_bits) <= total_learning_rate).sum())
        n_weights += parameter.numel()
    return n_moving / max(1, n_weights)


def _owner(name: str) -> str:
    """Return the path of the block, layer or merger that a parameter belongs to."""
    parts = name.split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[0] + 1] if numbers and "merger" not in parts else parts[:3])

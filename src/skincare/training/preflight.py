"""Proofs on the real first batch, before any epoch: most failures of fine-tuning are silent, these are not.

Each check raises StageError with what is wrong. Together they take one training step's time; weights and random
state are as before when they return.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from skincare.dataset.chat import Example
from skincare.errors import StageError
from skincare.modeling.batches import IGNORED, Batch, PromptEncoder
from skincare.modeling.settings import HeadUse
from skincare.modeling.vision_features import VisionFeatures
from skincare.prompts import question
from skincare.training import objectives
from skincare.training.distributed import full_tensor

logger = logging.getLogger(__name__)


def check(
    images: VisionFeatures, parameters: Mapping[str, torch.nn.Parameter], examples: Sequence[Example],
    learning_rate: float, total_learning_rate: float, head_use: HeadUse = "none",
) -> None:  # fmt: skip
    """Prove that these examples would teach exactly `parameters`, and exactly their answers.

    `total_learning_rate` is the sum of the learning rates of all steps to come.
    """
    recogniser, encoder = images.recogniser, images.encoder
    recogniser.zero_grad(set_to_none=True)  # a check that ran out of memory may have left some
    grids, states = images.get([example.image for example in examples])
    if any(one.requires_grad for one in states):
        raise StageError("The frozen prefix of the vision tower is in the backward graph")
    categories, hints = [example.category for example in examples], [example.hint for example in examples]
    batch = encoder.batch(grids, categories, hints=hints, opening_apart=recogniser.reads_opening_once)
    check_prompt(encoder, batch, hints)
    check_length(recogniser.model, batch)
    check_labels(encoder, batch, categories)
    recogniser.train()
    objectives.losses(recogniser, encoder, head_use, grids, states, categories, hints).mean().backward()
    check_gradients(recogniser.model, parameters)
    check_step(parameters, learning_rate)
    dtype = recogniser.dtype
    of_model = {name: parameter for name, parameter in parameters.items() if not name.startswith("classification_head")}
    share = movable_fraction(of_model, total_learning_rate, dtype)
    recogniser.zero_grad(set_to_none=True)
    logger.info(
        "pre-flight: prompt, labels, gradients of %d tensors and one step are as they should be; the run can move "
        "%.1f %% of the weights far enough to show in %s",
        len(parameters), 100 * share, str(dtype).removeprefix("torch."),
    )  # fmt: skip


def check_prompt(encoder: PromptEncoder, batch: Batch, hints: Sequence[str] = ()) -> None:
    """Prove that each prompt holds the question with its hint, and image tokens as its image's grid asks for."""
    asked = [question(hint) for hint in hints or [""] * len(batch.grids)]
    for ids, mask, grid, text_asked in zip(batch.input_ids, batch.attention_mask, batch.grids, asked, strict=True):
        text = encoder.tokenizer.decode(ids[mask.bool()], skip_special_tokens=False)
        if text_asked not in text:
            raise StageError(f"The prompt does not hold the question {text_asked!r}: {text[:200]!r}")
        n_image_tokens = int((ids == encoder.image_token_id).sum())
        if n_image_tokens != encoder.n_visual_tokens(grid) or n_image_tokens == 0:
            raise StageError(f"{n_image_tokens} image tokens for an image of {encoder.n_visual_tokens(grid)}")


def check_length(model: Any, batch: Batch) -> None:
    """Prove that the prompts are no longer than what the model was made for."""
    n_tokens, most = len(batch.opening) + batch.input_ids.shape[1], model.config.text_config.max_position_embeddings
    if n_tokens > most:
        raise StageError(
            f"A prompt of {n_tokens} tokens is longer than the {most} that the model takes; allow fewer visual tokens, "
            "or shorter hints with `python src/build_dataset.py --hint-bytes`"
        )


def check_labels(encoder: PromptEncoder, batch: Batch, answers: Sequence[str]) -> None:
    """Prove that what is learnt decodes to exactly the answer and the end token."""
    for labels, answer in zip(batch.labels, answers, strict=True):
        learnt = encoder.tokenizer.decode(labels[labels != IGNORED], skip_special_tokens=False)
        if learnt != f"{answer}<|im_end|>":
            raise StageError(f"The labels teach {learnt!r} instead of {answer!r}")


def check_gradients(model: torch.nn.Module, parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """Prove that gradients are there and not zero in the promised modules, and nowhere else.

    A tensor may have a zero gradient (a key projection's bias always has one); a module may not.
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
    """Prove that an AdamW step changes every promised module, then put the weights back.

    One tensor after the other, so that no room for copies and states of all is needed.
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
    """Return the share of weights that a run can move so far that they become other numbers of a dtype.

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
    """Return the block, layer or merger that a parameter belongs to."""
    parts = name.split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[0] + 1] if numbers and "merger" not in parts else parts[:3])

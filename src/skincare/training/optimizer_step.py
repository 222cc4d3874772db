"""Optimizer steps under memory pressure: the first one allocates the state, two numbers per trained weight in AdamW."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from skincare.errors import StageError
from skincare.modeling.out_of_memory import halving
from skincare.training import checkpoints, optimizers

TRAIN_LESS: Final = "a recipe with fewer trained weights (-merger, -lora)"
_SMALLER_STATES: Final = f"use a recipe with a smaller optimizer state (-adamw8bit, -adafactor) or {TRAIN_LESS}"


class OptimizerStepper:
    """Takes optimizer steps; after running out of memory, with fewer tensors at a time.

    Running out of memory in the middle of a step leaves part of the weights updated. They are restored from the
    checkpoint before a process's first step; later steps allocate no new state and rarely have such a checkpoint.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter], state_folder: Path,
        identity: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self.optimizer = optimizer
        self.parameters = parameters
        self.state_folder = state_folder
        self.identity = identity
        self.n_tensors = len(parameters)

    def step(self, number: int) -> None:
        """Take step `number` of the run; raise StageError if a partial step cannot be undone."""
        is_partial = False

        def update(n_tensors: int) -> None:
            nonlocal is_partial
            if is_partial:
                self._undo(number)
            is_partial = True
            optimizers.step(self.optimizer, n_tensors)

        _, self.n_tensors = halving(update, self.n_tensors, "the optimizer's step", _SMALLER_STATES, "tensor")

    def _undo(self, number: int) -> None:
        state = checkpoints.latest_state(self.state_folder, "last")
        if state is not None:
            saved = checkpoints.load_state(state, self.parameters, self.optimizer, self.identity)
            if saved.step == number:
                return
        raise StageError(f"Out of memory in step {number}: continue with --resume, or {_SMALLER_STATES}")

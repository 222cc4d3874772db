"""The optimizer's steps where memory is short: the first makes its states, two numbers for every weight that learns."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from skincare.errors import StageError
from skincare.modeling.out_of_memory import halving
from skincare.training import checkpoints, optimizers

TRAIN_LESS: Final = "a recipe that trains less (-merger, -lora)"
_SMALLER_STATES: Final = f"take a recipe whose optimizer keeps less (-adamw8bit, -adafactor) or {TRAIN_LESS}"


class OptimizerStepper:
    """Lets an optimizer step, with fewer tensors at a time from when memory has run out in a step.

    Memory that ends in the middle of a step leaves some weights moved. They are taken back to the saved state from
    which a process takes its first step; later steps, which make no new states, seldom have one.
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
        """Take step `number` of the run; raises StageError where memory ends one that cannot be taken back."""
        is_torn = False

        def update(n_tensors: int) -> None:
            nonlocal is_torn
            if is_torn:
                self._undo(number)
            is_torn = True
            optimizers.step(self.optimizer, n_tensors)

        _, self.n_tensors = halving(update, self.n_tensors, "the optimizer's step", _SMALLER_STATES, "tensor")

    def _undo(self, number: int) -> None:
        state = checkpoints.latest_state(self.state_folder, "last")
        if state is not None:
            saved = checkpoints.load_state(state, self.parameters, self.optimizer, self.identity)
            if saved.step == number:
                return
        raise StageError(f"Out of memory in step {number}: go on by --resume, or {_SMALLER_STATES}")

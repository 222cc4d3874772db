"""Several processes that train one model: each takes its share of every step's pictures, one of them writes.

`accelerate launch src/finetune.py ...` (or torchrun) starts them. Gradients are summed once per step over what learns,
so that a step is that of one process with the same pictures, up to the order of additions; states do not depend on the
number of processes, and a run may be resumed with another.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from torch import distributed

Item = TypeVar("Item")


@dataclass(frozen=True)
class World:
    """This process's place among `size`; the sums of one process are its own values."""

    rank: int = 0
    size: int = 1

    @property
    def is_writer(self) -> bool:
        """Tell whether this process writes files."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return the items that fall to this process."""
        return items[self.rank :: self.size]

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace every gradient by the sum over processes; one that a process lacks counts as zero."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)

    def sum_number(self, value: float) -> float:
        """Return the sum over processes, the same in each."""
        return sum(self.gather([value]))

    def gather(self, items: Sequence[Item]) -> list[Item]:
        """Return the items of all processes, the same list in each."""
        if self.size == 1:
            return list(items)
        parts: list[Any] = [None] * self.size
        distributed.all_gather_object(parts, list(items))
        return [item for part in parts for item in part]

    def wait(self) -> None:
        """Return when all processes are here."""
        if self.size > 1:
            distributed.barrier()


def connect() -> World:
    """Join the other processes that the launcher started, if any."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return World()
    state = PartialState(cpu=not torch.cuda.is_available())
    return World(state.process_index, state.num_processes)

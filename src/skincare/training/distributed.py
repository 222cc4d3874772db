"""Several processes that train one model: each takes its share of every step's images, one of them writes.

`accelerate launch src/finetune.py ...` starts them on GPUs, `torchrun --nproc_per_node 2 -- src/finetune.py ...` on any
machine. Gradients are summed once per step over what learns, so that a step is that of one process with the same
images, up to the order of additions; states hold whole tensors and do not depend on the number of processes, so a run
may be resumed with another.

With `accelerate launch --use_fsdp` each process also keeps only its share of weights, gradients and optimizer states
(torch's FSDP2, whatever --fsdp_version says): layers and vision blocks are gathered for the moment of their use.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Final, TypeVar

import torch
from accelerate import PartialState
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from skincare.modeling import vision
from skincare.modeling.recogniser import Recogniser

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

# The others wait while the writer fills the image cache, exports and tests; the backends' own 10 to 30 minutes would
# end a run with many images. When a process dies, the launcher ends the others at once: none waits so long for it.
_PATIENCE: Final = timedelta(days=2)


@dataclass(frozen=True)
class World:
    """This process's place among `size`, each with the whole model; the sums of one process are its own values."""

    rank: int = 0
    size: int = 1
    is_sharded: ClassVar[bool] = False

    @property
    def is_writer(self) -> bool:
        """Tell whether this process writes files."""
        return self.rank == 0

    def shard(self, recogniser: Recogniser, parameters: Mapping[str, nn.Parameter]) -> Mapping[str, nn.Parameter]:
        """Leave each process its share of the weights; return what has taken the place of `parameters`."""
        del recogniser
        return parameters

    @contextmanager
    def gathered(self, recogniser: Recogniser) -> Iterator[None]:
        """Have the whole model at hand in the block, so that processes need not make the same passes."""
        del recogniser
        yield

    def local_items(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return the items that fall to this process."""
        return items[self.rank :: self.size]

    def largest_local_count(self, items: Sequence[Item]) -> int:
        """Return how many of the items fall to the process that gets most."""
        return -(-len(items) // self.size)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by the sum over processes."""
        if self.size == 1:
            return
        for parameter in parameters:
            assert parameter.grad is not None, "every process makes at least one pass"
            distributed.all_reduce(parameter.grad)

    def sum_scalar(self, value: float) -> float:
        """Return the sum over processes, the same in each."""
        return sum(self.gather([value]))

    def gather(self, items: Sequence[Item]) -> list[Item]:
        """Return the items of all processes, the same list in each."""
        if self.size == 1:
            return list(items)
        parts: list[Any] = [None] * self.size
        distributed.all_gather_object(parts, list(items))
        return [item for part in parts for item in part]

    def barrier(self) -> None:
        """Return when all processes are here."""
        if self.size > 1:
            distributed.barrier()


@dataclass(frozen=True)
class ShardedWorld(World):
    """Processes that each keep a share of every tensor. All must make the same number of training passes."""

    is_sharded: ClassVar[bool] = True

    def shard(self, recogniser: Recogniser, parameters: Mapping[str, nn.Parameter]) -> Mapping[str, nn.Parameter]:
        """Shard in units that are gathered one after the other; what is in none of them is gathered for a whole pass.

        In bf16 checkpoints weights are rounded before they travel, or autocast would keep a copy of every one.
        """
        mesh = init_device_mesh(recogniser.device.type, (self.size,))
        dtype = recogniser.dtype if recogniser.dtype == torch.bfloat16 else None
        rounded = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        model = recogniser.model.model
        if recogniser.head is not None:
            fully_shard(recogniser.head, mesh=mesh)  # computes in fp32
        for unit in (
            *(vision.block_parts(block) for block in model.visual.blocks),
            model.visual.merger,
            *model.language_model.layers,
        ):
            fully_shard(unit, mesh=mesh, mp_policy=rounded)
        fully_shard(recogniser, mesh=mesh, mp_policy=rounded, reshard_after_forward=True)
        for method in ("vision_features", "head_scores", "answer_losses_and_head_scores"):
            register_fsdp_forward_method(recogniser, method)
        for module in _units(recogniser):
            # Each process's loss is its part of the mean: gradients are summed, not averaged.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
        found = recogniser.parameters_by_name()
        logger.info(
            "process %d of %d keeps %s of %s parameters", self.rank + 1, self.size,
            f"{sum(one.to_local().numel() for one in found.values() if isinstance(one, DTensor)):,}",
            f"{sum(one.numel() for one in found.values()):,}",
        )  # fmt: skip
        return {name: found[name] for name in parameters}

    @contextmanager
    def gathered(self, recogniser: Recogniser) -> Iterator[None]:
        """Gather all units for the block; they take the room that gradients have in a step."""
        for module in _units(recogniser):
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        try:
            yield
        finally:
            for module in _units(recogniser):
                module.reshard()
                module.set_reshard_after_forward(True, recurse=False)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Do nothing: the backward pass has summed them."""


def connect() -> World:
    """Join the other processes that the launcher started, if any."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return World()
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)
    kind = ShardedWorld if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" else World
    logger.info("this is process %d of %d", state.process_index + 1, state.num_processes)
    return kind(state.process_index, state.num_processes)


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor of which this process may hold a share; all processes must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def copy_full_tensor(values: torch.Tensor, target: torch.Tensor) -> None:
    """Copy a whole tensor into one of which this process may hold a share."""
    if isinstance(target, DTensor):
        values = distribute_tensor(values.to(target.device), target.device_mesh, target.placements, src_data_rank=None)
    target.copy_(values)


def _units(recogniser: Recogniser) -> list[FSDPModule]:
    return [module for module in recogniser.modules() if isinstance(module, FSDPModule)]

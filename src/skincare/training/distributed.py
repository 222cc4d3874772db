"""Data-parallel training: every process computes gradients of its part of a step's images; one process writes files.

`accelerate launch src/finetune.py ...` starts processes on GPUs, `torchrun --nproc_per_node 2 -- src/finetune.py ...`
on any machine. Gradients of the trained parameters are summed once per step, so that a step equals that of a single
process with the same images, up to the order of additions. Checkpoints hold full tensors and do not depend on the
number of processes: a run may be resumed with another number.

With `accelerate launch --use_fsdp` each process stores only its shard of weights, gradients and optimizer states
(torch's FSDP2, whatever --fsdp_version is); layers and vision blocks are gathered while they are used.
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

from skincare.errors import StageError
from skincare.modeling import vision_tower
from skincare.modeling.cached_vlm import CachedVLM

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

# Other processes wait while the writer fills the image cache, exports and tests; the backends' default of 10 to 30
# minutes would end a run with many images. If a process dies, the launcher terminates the others at once.
_BARRIER_TIMEOUT: Final = timedelta(days=2)

_FAILURE_KEY: Final = "skincare/failure"


@dataclass(frozen=True)
class World:
    """The processes of a run, each with the whole model; `rank` is this one. Collectives of one process do nothing."""

    rank: int = 0
    size: int = 1
    is_sharded: ClassVar[bool] = False

    @property
    def is_writer(self) -> bool:
        """Return whether this process writes files."""
        return self.rank == 0

    def shard(self, network: CachedVLM, parameters: Mapping[str, nn.Parameter]) -> Mapping[str, nn.Parameter]:
        """Shard the weights over the processes; return the parameters that replace `parameters`."""
        del network
        return parameters

    @contextmanager
    def gathered(self, network: CachedVLM) -> Iterator[None]:
        """Hold the whole model within the block, so that processes may make different numbers of passes."""
        del network
        yield

    def local_items(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return the items of this process."""
        return items[self.rank :: self.size]

    def largest_local_count(self, items: Sequence[Item]) -> int:
        """Return the number of items of the process with the most items."""
        return -(-len(items) // self.size)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over processes."""
        if self.size == 1:
            return
        for parameter in parameters:
            assert parameter.grad is not None, "every process makes at least one pass"
            distributed.all_reduce(parameter.grad)

    def sum_scalar(self, value: float) -> float:
        """Return the sum over processes, the same in each."""
        return sum(self.gather([value]))

    def gather(self, items: Sequence[Item]) -> list[Item]:
        """Return the concatenated items of all processes, the same list in each."""
        if self.size == 1:
            return list(items)
        parts: list[Any] = [None] * self.size
        distributed.all_gather_object(parts, list(items))
        return [item for part in parts for item in part]

    @contextmanager
    def sharing_failure(self) -> Iterator[None]:
        """Raise the StageError of one process in all of them."""
        yield

    def barrier(self) -> None:
        """Wait until all processes have called this."""
        if self.size > 1:
            distributed.barrier()


@dataclass(frozen=True)
class ShardedWorld(World):
    """Processes that each store a shard of every tensor; all must make the same number of training passes."""

    is_sharded: ClassVar[bool] = True

    def shard(self, network: CachedVLM, parameters: Mapping[str, nn.Parameter]) -> Mapping[str, nn.Parameter]:
        """Shard in units that are gathered one after the other; the remaining weights are gathered for a whole pass.

        Weights of bf16 checkpoints are rounded before they are gathered; otherwise autocast would keep a copy of each.
        """
        mesh = init_device_mesh(network.device.type, (self.size,))
        dtype = network.dtype if network.dtype == torch.bfloat16 else None
        rounded = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        model = network.model.model
        if network.head is not None:
            fully_shard(network.head, mesh=mesh)  # the head computes in fp32
        for unit in (
            *(vision_tower.block_parts(block) for block in model.visual.blocks),
            *vision_tower.mergers(model.visual),
            *model.language_model.layers,
        ):
            fully_shard(unit, mesh=mesh, mp_policy=rounded)
        fully_shard(network, mesh=mesh, mp_policy=rounded, reshard_after_forward=True)
        for method in ("vision_features", "head_scores", "answer_losses_and_head_scores"):
            register_fsdp_forward_method(network, method)
        for module in _units(network):
            # A process's loss is its part of the mean over the batch: gradients are summed, not averaged.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
        found = network.parameters_by_name()
        logger.info(
            "process %d of %d stores %s of %s parameters", self.rank + 1, self.size,
            f"{sum(one.to_local().numel() for one in found.values() if isinstance(one, DTensor)):,}",
            f"{sum(one.numel() for one in found.values()):,}",
        )  # fmt: skip
        return {name: found[name] for name in parameters}

    @contextmanager
    def gathered(self, network: CachedVLM) -> Iterator[None]:
        """Gather all units for the block; they take the memory that gradients take in a step."""
        for module in _units(network):
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        try:
            yield
        finally:
            for module in _units(network):
                module.reshard()
                module.set_reshard_after_forward(True, recurse=False)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Do nothing: the backward pass has summed the gradients."""

    @contextmanager
    def sharing_failure(self) -> Iterator[None]:
        """Raise the StageError of one process in all of them.

        A process that leaves a pass ends the collectives in which the others wait, with a RuntimeError about its
        connection. They find the reason in the store by which the processes have met.
        """
        store = distributed.distributed_c10d._get_default_store()
        try:
            yield
        except StageError as error:
            store.set(_FAILURE_KEY, f"process {self.rank + 1} of {self.size}: {error}")
            raise
        except RuntimeError as error:
            if not store.check([_FAILURE_KEY]):
                raise
            raise StageError(store.get(_FAILURE_KEY).decode()) from error


def connect() -> World:
    """Connect to the other processes that the launcher started, if any."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return World()
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=_BARRIER_TIMEOUT)
    kind = ShardedWorld if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" else World
    logger.info("process %d of %d", state.process_index + 1, state.num_processes)
    return kind(state.process_index, state.num_processes)


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor with the shards of all processes; every process must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def copy_full_tensor(values: torch.Tensor, target: torch.Tensor) -> None:
    """Copy a full tensor into one of which this process may hold a shard."""
    if isinstance(target, DTensor):
        values = distribute_tensor(values.to(target.device), target.device_mesh, target.placements, src_data_rank=None)
    target.copy_(values)


def _units(network: CachedVLM) -> list[FSDPModule]:
    return [module for module in network.modules() if isinstance(module, FSDPModule)]

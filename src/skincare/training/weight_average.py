"""An exponential moving average of the trained weights, evaluated and exported in place of the weights.

The average of a parameter is kept in the optimizer's state of the parameter, so that checkpoints, resuming and the
recovery from a partial step treat it like a momentum. torch's `get_ema_multi_avg_fn` computes it. As in torch's
`AveragedModel`, the first step starts the average with the weights that it gives.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from skincare.training.stopping import StopRequest

# An fp32 number per trained weight.
BYTES_PER_WEIGHT: Final = 4

_KEY: Final = "average"


def track(optimizer: torch.optim.Optimizer, decay: float) -> None:
    """Update the averages after every step of the optimizer, of the parameters in its groups at that time."""
    update = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def after_step(stepped: torch.optim.Optimizer, *_: Any) -> None:
        parameters = [one for group in stepped.param_groups for one in group["params"]]
        known = [one for one in parameters if _KEY in stepped.state[one]]
        if known:
            update([stepped.state[one][_KEY] for one in known], [one.detach() for one in known], 0)
        for one in parameters:
            if _KEY not in stepped.state[one]:
                stepped.state[one][_KEY] = one.detach().clone()

    optimizer.register_step_post_hook(after_step)


@contextmanager
def applied(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter], stop: StopRequest
) -> Iterator[None]:
    """Replace the weights within the block by their averages, if there are any; a signal never interrupts that."""
    is_swapped = False
    try:
        with stop.deferred():
            _swap(optimizer, parameters)
            is_swapped = True
        yield
    finally:
        if is_swapped:
            with stop.deferred():
                _swap(optimizer, parameters)


@torch.no_grad()
def _swap(optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """Exchange the weights and their averages in place; does nothing before the first step."""
    for parameter in parameters.values():
        average = optimizer.state.get(parameter, {}).get(_KEY)
        if average is not None:
            weights = parameter.clone()
            parameter.copy_(average)
            average.copy_(weights)

"""Learning rates as pure functions of the step, so that a resumed run needs no scheduler state.

Each returns the rate of a step, 0 being the first, as a share of the peak rate: `floor` to 1.
"""

import math
from typing import Literal

Schedule = Literal["cosine_restarts", "warmup_cosine", "one_cycle", "constant"]


def cosine_warm_restarts(step: float, period: float, multiplier: float, floor: float) -> float:
    """From 1 down to `floor` within each period, then up again at once; each period `multiplier` times the last.

    Source: SGDR, Loshchilov and Hutter 2017, equation 5.
    """
    start, length = 0.0, period
    while step >= start + length:
        start += length
        length *= multiplier
    return _cosine((step - start) / length, floor)


def warmup_cosine(step: float, n_warmup: float, n_steps: float, floor: float) -> float:
    """Up in a line over `n_warmup` steps, then down in half a cosine to `floor` at the last of `n_steps`."""
    if step < n_warmup:
        return (step + 1) / (n_warmup + 1)
    return _cosine((step - n_warmup) / max(1.0, n_steps - 1 - n_warmup), floor)


def one_cycle(step: float, n_rise: float, n_steps: float, floor: float) -> float:
    """Up in half a cosine from `floor` over `n_rise` steps, then down again to `floor`.

    Source: Smith and Topin 2018, with cosines in place of lines as in torch's OneCycleLR.
    """
    if step < n_rise:
        return _cosine(1 - step / n_rise, floor)
    return _cosine((step - n_rise) / max(1.0, n_steps - 1 - n_rise), floor)


def _cosine(share: float, floor: float) -> float:
    return floor + (1 - floor) * (1 + math.cos(math.pi * min(share, 1.0))) / 2

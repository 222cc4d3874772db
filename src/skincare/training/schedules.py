"""Learning-rate schedules as pure functions of the step: a resumed run needs no scheduler state.

Each function returns the learning rate of a step, counted from 0, as a multiple of the peak rate between `floor` and 1.
torch's and transformers' schedulers are stateful and differ from these formulas in the last bits.
"""

import math
from typing import Literal

Schedule = Literal["cosine_restarts", "warmup_cosine", "one_cycle", "constant"]


def cosine_warm_restarts(step: float, period: float, multiplier: float, floor: float) -> float:
    """Decay from 1 to `floor` within each period, then restart at 1; a period is `multiplier` times the previous one.

    Source: SGDR, Loshchilov and Hutter 2017, equation 5.
    """
    start, length = 0.0, period
    while step >= start + length:
        start += length
        length *= multiplier
    return _cosine((step - start) / length, floor)


def warmup_cosine(step: float, n_warmup: float, n_steps: float, floor: float) -> float:
    """Increase linearly over `n_warmup` steps, then decay along a half cosine to `floor` at the last of `n_steps`."""
    if step < n_warmup:
        return (step + 1) / (n_warmup + 1)
    return _cosine((step - n_warmup) / max(1.0, n_steps - 1 - n_warmup), floor)


def one_cycle(step: float, n_rise: float, n_steps: float, floor: float) -> float:
    """Increase along a half cosine from `floor` over `n_rise` steps, then decay along another one to `floor`.

    Source: Smith and Topin 2018, with cosine instead of linear segments as in torch's OneCycleLR.
    """
    if step < n_rise:
        return _cosine(1 - step / n_rise, floor)
    return _cosine((step - n_rise) / max(1.0, n_steps - 1 - n_rise), floor)


def _cosine(fraction: float, floor: float) -> float:
    return floor + (1 - floor) * (1 + math.cos(math.pi * min(fraction, 1.0))) / 2

"""Learning rates as pure functions of the step, so that a resumed run needs no scheduler state."""

import math


def cosine_warm_restarts(step: float, period: float, multiplier: float, peak: float, floor: float) -> float:
    """Return the rate of a step, 0 being the first: from `peak` down to `floor`, then up again at once.

    Each period is `multiplier` times the one before; step and period share a unit.
    Source: SGDR, Loshchilov and Hutter 2017, equation 5.
    """
    start, length = 0.0, period
    while step >= start + length:
        start += length
        length *= multiplier
    return floor + (peak - floor) * (1 + math.cos(math.pi * (step - start) / length)) / 2

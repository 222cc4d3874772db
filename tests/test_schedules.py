"""The stateless schedules match torch's schedulers."""

import dataclasses

import pytest
import torch

from skincare.training import schedules
from skincare.training.recipes import RECIPES


def torch_rates(make, n_steps, peak=3e-4):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak, momentum=0.9)
    schedule = make(optimizer)
    for _ in range(n_steps):
        yield optimizer.param_groups[0]["lr"] / peak
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize(("period", "multiplier"), [(7, 1), (5, 2), (10, 1)])
def test_cosine_warm_restarts_match_torch(period, multiplier):
    expected = torch_rates(
        lambda one: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(one, period, multiplier, eta_min=3e-6), 40
    )
    for step, rate in enumerate(expected):
        assert schedules.cosine_warm_restarts(step, period, multiplier, 0.01) == pytest.approx(rate, rel=1e-9)


def test_one_cycle_matches_torch():
    expected = torch_rates(
        lambda one: torch.optim.lr_scheduler.OneCycleLR(
            one, 3e-4, total_steps=41, pct_start=0.25, div_factor=50, final_div_factor=1
        ),
        41,
    )
    # torch counts the rise from 0 to pct_start * total - 1.
    for step, rate in enumerate(expected):
        assert schedules.one_cycle(step, 0.25 * 41 - 1, 41, 0.02) == pytest.approx(rate, rel=1e-6)


def test_warm_up_is_linear_and_the_decay_ends_at_the_floor():
    rates = [schedules.warmup_cosine(step, 10, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert rates[10] == 1.0 == max(rates)
    assert rates[-1] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_restart_is_at_the_peak():
    assert schedules.cosine_warm_restarts(5, 5, 1, 0.0) == 1.0
    assert schedules.cosine_warm_restarts(4.999, 5, 1, 0.0) < 1e-6


@pytest.mark.parametrize("schedule", [schedules.warmup_cosine, schedules.one_cycle])
def test_shortest_decays_have_a_defined_rate(schedule):
    assert schedule(10, 10, 11, 0.1) == 1.0
    assert schedule(11, 10, 12, 0.1) == pytest.approx(0.1)
    assert schedule(50, 10, 12, 0.1) == pytest.approx(0.1)


def test_a_recipe_counts_its_warm_up_in_shares_of_all_steps_and_its_restarts_in_epochs():
    recipe = dataclasses.replace(RECIPES["tuned"], learning_rate=0.1, warmup_share=0.25, max_epochs=4)
    rates = [recipe.rate(step, 8) for step in range(32)]
    assert rates.index(max(rates)) == 8
    assert rates[0] == pytest.approx(0.1 / 9)
    restarts = dataclasses.replace(RECIPES["reference"], restart_period_epochs=2, restart_multiplier=1)
    rates = [restarts.rate(step, 8) for step in range(32)]
    assert [step for step, rate in enumerate(rates) if rate == max(rates)] == [0, 16]

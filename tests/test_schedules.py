import pytest
import torch

from skincare.schedules import cosine_warm_restarts


@pytest.mark.parametrize(("period", "multiplier"), [(7, 1), (5, 2), (10, 1)])
def test_rates_equal_those_of_torch(period, multiplier):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=3e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, period, multiplier, eta_min=1e-6)
    for step in range(40):
        expected = optimizer.param_groups[0]["lr"]
        assert cosine_warm_restarts(step, period, multiplier, 3e-4, 1e-6) == pytest.approx(expected, rel=1e-9)
        optimizer.step()
        schedule.step()


def test_a_restart_is_at_the_peak():
    assert cosine_warm_restarts(5, 5, 1, 1.0, 0.0) == 1.0
    assert cosine_warm_restarts(4.999, 5, 1, 1.0, 0.0) < 1e-6

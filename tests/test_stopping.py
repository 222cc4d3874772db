"""Signals and the time limit end a run with a saved state, from which it ends like an uninterrupted one."""

import dataclasses
import os
import signal

import pytest

import finetune
from skincare import stage
from skincare.paths import TINY_MODEL, Layout
from skincare.tables import HISTORY
from skincare.training import checkpoints, stopping
from skincare.training.loop import Trainer
from skincare.training.optimizer_step import OptimizerStepper
from skincare.training.stopping import StopRequest
from tests.dataset_helpers import write_dataset_files
from tests.plots import replace_training_plots


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self):
        return self.now


def test_a_signal_is_raised_at_once_outside_and_at_the_end_of_a_deferred_block():
    stop, done = StopRequest(), []
    with stop.handling_signals(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    stop = StopRequest()
    with stop.handling_signals(), pytest.raises(KeyboardInterrupt), stop.deferred():
        with stop.deferred():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]
    assert stop.reason == "signal"


def test_a_late_second_ctrl_c_ends_a_deferred_block_but_no_early_one_and_no_sigterm():
    clock = Clock()
    stop, done = StopRequest(clock=clock), []
    with stop.handling_signals(), pytest.raises(KeyboardInterrupt), stop.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        clock.now = 5.0
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("still running")
        os.kill(os.getpid(), signal.SIGINT)
        done.append("not reached")
    assert done == ["still running"]


def test_signal_handlers_are_restored():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopRequest().handling_signals():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_time_limit_counts_from_the_start():
    clock = Clock()
    stop = StopRequest(1.5, clock)
    clock.now = 89.0
    assert stop.reason == ""
    clock.now = 90.0
    assert stop.reason == "time limit"
    assert StopRequest(clock=clock).reason == ""


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    replace_training_plots(monkeypatch, lambda *_: None)


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    """Two optimizer steps an epoch."""
    found = Layout(tmp_path_factory.mktemp("stopping"))
    write_dataset_files(found, {"train": 16, "val": 2, "test": 2})
    return found


@pytest.fixture(scope="module")
def whole(layout):
    """The result of an uninterrupted run."""
    with pytest.MonkeyPatch.context() as patched:
        replace_training_plots(patched, lambda *_: None)
        assert execute(layout, "whole") == 0
    return result(layout, "whole")


def execute(layout, run, **changes):
    config = finetune.Config(root=layout.root, run=run, model=str(TINY_MODEL), recipe="sample", min_tokens=36,
                             max_tokens=36, max_epochs=2, micro_batch_size=4, **changes)  # fmt: skip
    return stage.execute("finetune", config, layout, finetune.run)


def result(layout, run):
    rows = HISTORY.read(layout.finetune_log(run) / "history.csv")
    states = [checkpoints.latest_state(layout.training_state(run), kind) for kind in ("last", "best")]
    tensors = [path.read_bytes() for state in states for path in sorted(state.glob("*.safetensors"))]
    tensors.append((layout.finetuned_model(run) / "model.safetensors").read_bytes())
    return [dataclasses.replace(row, seconds=0.0) for row in rows], tensors


def test_a_run_stopped_after_every_step_ends_like_an_uninterrupted_one(layout, whole, monkeypatch, caplog):
    monkeypatch.setattr("sys.argv", ["src/finetune.py", "--run", "short", "--max-minutes", "0"])
    monkeypatch.setattr("skincare.runlog.setup", lambda *_, **__: None)
    codes, states = [], []
    while len(codes) < 9 and (not codes or codes[-1] == 75):
        codes.append(execute(layout, "short", max_minutes=0, resume=bool(codes)))
        states.append(checkpoints.latest_state(layout.training_state("short"), "last").name)
    # Every start takes at least one step.
    assert codes == [75] * 4 + [0]
    assert states[:3] == ["last-0000-0000001", "last-0000-0000002", "last-0001-0000001"]
    last = next(one.message for one in caplog.records if "--max-minutes" in one.message)
    assert "in epoch 1, after step 1 of at most 4; the state is saved; continue with `python src/finetune.py" in last
    assert last.endswith("--resume`")
    assert result(layout, "short") == whole


@pytest.mark.parametrize(
    ("owner", "name", "n_calls", "state"),
    [
        (Trainer, "_accumulate_gradients", 4, "last-0001-0000001"),
        (OptimizerStepper, "step", 3, "last-0001-0000001"),
        (Trainer, "_record_epoch", 2, "last-0001-0000000"),
    ],
    ids=["in a pass", "in the optimizer step", "in the evaluation"],
)
def test_a_signal_saves_the_last_completed_step(layout, whole, monkeypatch, owner, name, n_calls, state):
    original, calls, run = getattr(owner, name), [], name.strip("_")

    def signalled(*given):
        calls.append(1)
        if len(calls) == n_calls:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*given)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, signalled)
        assert execute(layout, run) == 130
    assert checkpoints.latest_state(layout.training_state(run), "last").name == state
    assert execute(layout, run, resume=True) == 0
    assert result(layout, run) == whole


def test_processes_stop_together_when_one_has_a_reason(layout, monkeypatch):
    """The second process of two has received a signal; this one has not."""
    from tests.test_accumulation import make_training

    trainer, saved = make_training(layout, 4), []
    monkeypatch.setattr(trainer, "_save_for_resume", lambda: saved.append(1))
    monkeypatch.setattr(type(trainer.world), "gather", lambda self, items: [*items, "signal"])
    with pytest.raises(KeyboardInterrupt):
        trainer._stop_if_requested()
    monkeypatch.setattr(type(trainer.world), "gather", lambda self, items: [*items, "time limit"])
    with pytest.raises(stopping.TimeLimitError, match="the state is saved"):
        trainer._stop_if_requested()
    assert len(saved) == 2

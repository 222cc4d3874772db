"""One of several processes that run cases one after the other, so that tests share a launch. Used by test_distributed.

Each process writes what a case logs to <root>/<case>.<rank>.log, and the stage's exit code as its last line.

Command: torchrun --nproc_per_node 2 tests/launched_runs.py <root of a dataset> <JSON file: case, arguments of finetune>
"""

import contextlib
import dataclasses
import json
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY)]


def main(root: str, cases: str) -> None:
    import pytest

    special = {"gradients": write_gradients, "out_of_memory": run_out_of_memory, "interrupted": run_until_signal}
    patch = pytest.MonkeyPatch()
    leave_out_slow_parts(patch)
    add_combined_recipe(patch)
    for case, arguments in json.loads(Path(cases).read_text()).items():
        with log_of(Path(root), case):
            special.get(case, run_finetune)(root, arguments)


def leave_out_slow_parts(patch):
    """Leave out plots and the measurement for the memory plan, which take longer than a run of a tiny model."""
    from skincare.training import memory_plan
    from tests.plots import replace_training_plots

    replace_training_plots(patch)
    patch.setattr(memory_plan, "_measure", lambda *_: (1, 2, 1, 1))


def add_combined_recipe(patch):
    """Add the recipe `combined`: DoRA, a head, Muon, label smoothing and the moving average; an epoch of 4 per step."""
    from skincare.training.recipes import RECIPES, Adapter

    patch.setitem(RECIPES, "combined", dataclasses.replace(
        RECIPES["sample-head"], adapter=Adapter(use_dora=True), optimizer="muon", label_smoothing=0.1,
        average_decay=0.8, learning_rate=1e-4, max_epochs=1, effective_batch_size=4,
    ))  # fmt: skip


@contextlib.contextmanager
def log_of(root: Path, case: str):
    from skincare.training import distributed

    rank = distributed.connect().rank
    with (root / f"{case}.{rank}.log").open("w", buffering=1) as log, contextlib.redirect_stderr(log):
        try:
            yield
        except SystemExit as end:
            log.write(f"exit code {end.code}\n")


def run_finetune(root: str, arguments: list[str]) -> None:
    import finetune

    sys.argv = ["finetune.py", "--root", root, *arguments]
    finetune.main()


def run_until_signal(root: str, arguments: list[str]) -> None:
    """Wait for a signal after the first epoch."""
    from skincare.training.run_outputs import RunOutputs

    record = RunOutputs.record_epoch

    def record_and_wait(self, trainer, result):
        record(self, trainer, result)
        end = time.monotonic() + 60
        while result.row.epoch == 1 and not trainer.stop.reason and time.monotonic() < end:
            time.sleep(0.01)

    RunOutputs.record_epoch = record_and_wait
    run_finetune(root, arguments)


def write_gradients(root: str, arguments: list[str]) -> None:
    """Write the gradients of a step of so many images, and its loss, to a file."""
    import torch
    from safetensors.torch import save_file

    from skincare.paths import Layout
    from skincare.training import distributed
    from tests.test_accumulation import make_training

    out, n_images = arguments
    world = distributed.connect()
    training = make_training(Layout(Path(root)), 2, world=world)
    record = training._compute_gradients(training.train[: int(n_images)])
    loss = world.sum_scalar(record.loss_parts.sum().item())
    world.sum_gradients(training.parameters.values())
    if world.is_writer:
        gradients = {name: parameter.grad for name, parameter in training.parameters.items()}
        save_file({**gradients, "loss": torch.tensor(loss), "processes": torch.tensor(world.size)}, out)
    world.barrier()


def run_out_of_memory(root: str, _arguments: list[str]) -> None:
    """Let the second of two processes with sharded weights run out of memory in a pass; this must be the last case."""
    import torch

    from skincare.errors import StageError
    from skincare.paths import Layout
    from skincare.training import distributed
    from tests.test_accumulation import make_training

    world = distributed.connect()
    training = make_training(Layout(Path(root)), 2, world=world)
    if world.rank == 1:
        layer = training.classifier.network.model.model.language_model.layers[1]

        def refuse(*_: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        layer.register_forward_pre_hook(refuse)
    try:
        training._compute_gradients(training.train[:4])
    except StageError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])

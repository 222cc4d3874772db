"""One of several processes that compute the gradients of a step; the first one writes them. Used by test_accumulation.

Command: torchrun --nproc_per_node 2 tests/gradient_worker.py <root of a dataset> <file to write> <images of the step>
"""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY)]


def main(root: str, out: str, n_images: str) -> None:
    import torch
    from safetensors.torch import save_file

    from skincare.paths import Layout
    from skincare.training import distributed
    from tests.test_accumulation import make_training

    world = distributed.connect()
    training = make_training(Layout(Path(root)), 2, world=world)
    record = training._compute_gradients(training.train[: int(n_images)])
    loss = world.sum_scalar(record.loss_parts.sum().item())
    world.sum_gradients(training.parameters.values())
    if world.is_writer:
        gradients = {name: parameter.grad for name, parameter in training.parameters.items()}
        save_file({**gradients, "loss": torch.tensor(loss), "processes": torch.tensor(world.size)}, out)
    world.barrier()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""One of two processes with sharded weights; the second runs out of memory in a pass. Used by test_distributed.

Command: accelerate launch --use_fsdp --num_processes 2 tests/sharded_failure_worker.py <root of a dataset>
"""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY)]


def main(root: str) -> None:
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
        sys.stderr.write(f"rank {world.rank} ended: {error}\n")
        sys.stderr.flush()
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""How a run is executed: settings of speed and memory, and its folders."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ExecutionSettings:
    """Settings that affect speed and memory of a run, but not what it learns."""

    micro_batch_size: int = 4
    eval_batch_size: int = 16
    save_every_steps: int = 200


@dataclass(frozen=True)
class TrainerFolders:
    """The folder of a run's checkpoints and that of its log."""

    state: Path
    log: Path

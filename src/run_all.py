"""Run every stage in order, as one would by hand, and stop at the first that fails.

In: the catalogue. Out: everything that the stages write; the report's headline is printed last.
Command: python src/run_all.py --sample   (the embedded shop and model, under sample_run/)
         python src/run_all.py            (the real shop and Qwen/Qwen2-VL-2B, in the repository's own folders)
Time: about 4 minutes for the sample on two cores.
"""

import logging
from dataclasses import dataclass

from skincare import stage
from skincare.model import DEFAULT_MODEL

logger = logging.getLogger(__name__)

STAGES = ("scrape", "clean", "build_dataset", "zero_shot", "finetune", "report")


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """What the stage can be told."""

    sample: bool = False
    """Use the embedded shop and tiny model, under sample_run/ unless --root says otherwise."""
    model: str = DEFAULT_MODEL
    """Model of the Hugging Face hub, or a local folder; --sample takes the embedded one."""
    recipe: str = "reference"
    """Recipe for finetune.py; --sample takes its own."""

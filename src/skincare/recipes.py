"""The training recipes: one typed table, chosen by name with `finetune.py --recipe`.

A recipe is everything that decides what a run learns. What only decides how fast (micro-batch, checkpointing, cache)
is an option of the stage.
"""

from dataclasses import dataclass
from typing import Final

from skincare.errors import StageError
from skincare.freezing import Trainable

# Last vision block, merger, last language layer: 100,563,200 parameters of Qwen2-VL-2B.
REFERENCE_PARTS: Final = Trainable()


@dataclass(frozen=True)
class Recipe:
    """One way to fine-tune; steps are optimizer steps of `effective_batch_size` pictures."""

    description: str
    trainable: Trainable = REFERENCE_PARTS
    learning_rate: float = 5e-7
    # Cosine warm restarts: the rate falls from `learning_rate` to `final_rate_share` of it within each period.
    restart_period_epochs: float = 5.0
    restart_multiplier: float = 1.0
    final_rate_share: float = 0.0
    effective_batch_size: int = 4
    max_grad_norm: float = 0.5
    weight_decay: float = 0.01
    max_epochs: int = 20
    # Stop after so many epochs without a better validation accuracy (or an equal one with a smaller loss).
    patience_epochs: int = 3


RECIPES: Final[dict[str, Recipe]] = {
    "reference": Recipe(
        "the reference's: last vision block, merger, last language layer; AdamW 5e-7, cosine warm restarts"
    ),
    "sample": Recipe(
        "for the embedded tiny model: the same parts, at a rate that suits two million parameters",
        learning_rate=2e-3,
        restart_period_epochs=20.0,
        final_rate_share=0.02,
        effective_batch_size=8,
        max_grad_norm=1.0,
        max_epochs=20,
        patience_epochs=8,
    ),
}


def recipe_named(name: str) -> Recipe:
    """Return a recipe; StageError names those that exist."""
    if name not in RECIPES:
        raise StageError(f"No recipe is called {name!r}; there are: {', '.join(RECIPES)}")
    return RECIPES[name]

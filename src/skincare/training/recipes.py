"""The training recipes: one typed table, chosen by name with `finetune.py --recipe`.

A recipe holds everything that decides what a run learns. Settings that only affect speed and memory (micro-batch size,
checkpointing, cache) are options of the stage (`run_settings`). Importable without torch.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from skincare.errors import StageError
from skincare.modeling.settings import HeadUse, Trainable
from skincare.training import schedules
from skincare.training.schedules import Schedule

OptimizerName = Literal["adamw", "adafactor", "lion", "muon", "adamw_8bit"]
Imbalance = Literal["none", "balanced_sampler", "class_balanced", "focal"]
Augmentation = Literal["none", "light", "colour", "geometric", "randaugment", "augmix"]

# Last vision block, merger, last language layer: 100,563,200 parameters of Qwen2-VL-2B.
REFERENCE_PARTS: Final = Trainable()


@dataclass(frozen=True)
class Adapter:
    """LoRA on every projection of the language layers; `n_bits` below 16 quantises the weights under it.

    use_rslora: scale by alpha / sqrt(rank) instead of alpha / rank; use_dora: train the length of each row separately.
    """

    rank: int = 16
    alpha: int = 32
    n_bits: Literal[4, 8, 16] = 16
    use_rslora: bool = False
    use_dora: bool = False


@dataclass(frozen=True)
class Recipe:
    """One way to fine-tune; steps are optimizer steps of `effective_batch_size` images."""

    description: str
    trainable: Trainable = REFERENCE_PARTS
    optimizer: OptimizerName = "adamw"
    learning_rate: float = 5e-7
    # Multiples of `learning_rate` for "vision", "merger", "language", "lora" and "head"; 1 for parts that are not
    # listed.
    rate_by_part: Mapping[str, float] = field(default_factory=dict)
    weight_decay: float = 0.01
    # Whether norms and biases decay too, as in the reference experiment.
    decays_everything: bool = True
    schedule: Schedule = "cosine_restarts"
    restart_period_epochs: float = 5.0
    restart_multiplier: float = 1.0
    # Length of the warm-up or of the rise, as a share of all steps.
    warmup_share: float = 0.1
    # Lowest learning rate, as a share of the peak.
    final_rate_share: float = 0.0
    effective_batch_size: int = 4
    max_grad_norm: float = 0.5
    max_epochs: int = 20
    # Early stopping: epochs without a higher validation accuracy, or an equal accuracy with a lower loss.
    patience_epochs: int = 3
    imbalance: Imbalance = "none"
    augmentation: Augmentation = "none"
    # LoRA on the language layers, trained in addition to `trainable`.
    adapter: Adapter | None = None
    # A classification head on the last prompt token: trained alone, or jointly with the answer tokens.
    head: HeadUse = "none"
    # Share of the probability that a training target gives to the other continuations, see
    # `modeling.label_smoothing`; 0 for none. Losses on val are never smoothed.
    label_smoothing: float = 0.0
    # Decay per step of the exponential moving average of the trained weights, which is evaluated and exported in
    # place of the weights; 0 for none.
    average_decay: float = 0.0
    # Share of the training images of every category, drawn once with the run's seed; the reference experiment's
    # reduction_factor 4 is 0.25.
    data_share: float = 1.0
    # Probability that a training image is shown without its hint, drawn per epoch. A model that always sees a hint
    # trusts it even where it is wrong, and fails without it. No effect on a dataset without hints.
    hint_dropout: float = 0.3

    def rate(self, step: int, n_steps_per_epoch: int) -> float:
        """Return the learning rate of an optimizer step, counted from 0."""
        floor, n_steps = self.final_rate_share, self.max_epochs * n_steps_per_epoch
        n_rise = self.warmup_share * n_steps
        if self.schedule == "cosine_restarts":
            period = self.restart_period_epochs * n_steps_per_epoch
            share = schedules.cosine_warm_restarts(step, period, self.restart_multiplier, floor)
        elif self.schedule == "warmup_cosine":
            share = schedules.warmup_cosine(step, n_rise, n_steps, floor)
        elif self.schedule == "one_cycle":
            share = schedules.one_cycle(step, n_rise, n_steps, floor)
        else:
            share = 1.0
        return self.learning_rate * share


_REFERENCE: Final = Recipe(
    "reference experiment: last vision block, merger, last language layer; AdamW 5e-7, cosine warm restarts; a quarter "
    "of the images",
    data_share=0.25,
)
# Published fine-tuning recipes train the projector at 2e-5 and comparable parts at 1e-5 to 3e-5, without decay of norms
# and biases.
_TUNED: Final = Recipe(
    "the reference parts at a published learning rate: AdamW 1e-5, warm-up and cosine, batch 16",
    learning_rate=1e-5,
    decays_everything=False,
    schedule="warmup_cosine",
    effective_batch_size=16,
    max_grad_norm=1.0,
    max_epochs=10,
)
# LoRA, batch, head and number of steps as ms-swift classifies images with Qwen2-VL-2B; learning rates of vision block
# and merger as in 2U1's script for classification. docs/recipes.md has the reasons and what would decide.
_BEST: Final = dataclasses.replace(
    _TUNED,
    description="our advice for about 2,000 images and 16 GB: LoRA on all language layers at 1e-4, last vision block, "
    "merger, and a classification head, trained jointly; batch 16, 10 epochs",
    trainable=Trainable(1, True, 0),
    adapter=Adapter(),
    head="joint",
    rate_by_part={"vision": 0.6, "merger": 2.0, "lora": 10.0, "head": 10.0},
    warmup_share=0.05,
)
_SAMPLE: Final = Recipe(
    "for the embedded tiny model: the same parts, at a learning rate for two million parameters",
    learning_rate=2e-3,
    weight_decay=0.5,
    restart_period_epochs=16.0,
    final_rate_share=0.02,
    effective_batch_size=8,
    max_grad_norm=1.0,
    max_epochs=16,
    patience_epochs=8,
)

# Changes of a variation to its base recipe; its name is `<base>-<variation>`.
_VARIATIONS: Final[dict[str, tuple[str, dict[str, object]]]] = {
    "k2": ("last two vision blocks and language layers", {"trainable": Trainable(2, True, 2)}),
    "k4": ("last four vision blocks and language layers", {"trainable": Trainable(4, True, 4)}),
    "merger": ("merger only", {"trainable": Trainable(0, True, 0)}),
    "language": ("last language layer only", {"trainable": Trainable(0, False, 1)}),
    "all": ("everything", {"trainable": Trainable(everything=True)}),
    "lora": ("LoRA of rank 16 on all language layers, nothing else", {
        "trainable": Trainable(0, False, 0), "adapter": Adapter()}),
    "lora-parts": ("with LoRA of rank 16 on all language layers", {"adapter": Adapter()}),
    "dora": ("DoRA of rank 16 on all language layers, nothing else", {
        "trainable": Trainable(0, False, 0), "adapter": Adapter(use_dora=True)}),
    "rslora": ("rank-stabilised LoRA of rank 64 on all language layers, nothing else", {
        "trainable": Trainable(0, False, 0), "adapter": Adapter(rank=64, use_rslora=True)}),
    "qlora8": ("LoRA over 8-bit weights", {"trainable": Trainable(0, False, 0), "adapter": Adapter(n_bits=8)}),
    "qlora4": ("LoRA over 4-bit weights", {"trainable": Trainable(0, False, 0), "adapter": Adapter(n_bits=4)}),
    "probe": ("classification head only, model frozen", {
        "trainable": Trainable(0, False, 0), "head": "alone", "rate_by_part": {"head": 5.0}}),
    "head": ("with a classification head, trained jointly", {"head": "joint"}),
    "lion": ("Lion at a fifth of the learning rate", {"optimizer": "lion", "rate_by_part": dict.fromkeys(
        ("vision", "merger", "language", "lora", "head"), 0.2)}),
    "adafactor": ("Adafactor", {"optimizer": "adafactor"}),
    "muon": ("Muon for hidden matrices, AdamW for the rest", {"optimizer": "muon"}),
    "adamw8bit": ("AdamW with 8-bit states", {"optimizer": "adamw_8bit"}),
    "constant": ("constant learning rate", {"schedule": "constant"}),
    "onecycle": ("one-cycle learning rate", {"schedule": "one_cycle", "warmup_share": 0.3}),
    "warmup": ("warm-up and cosine", {"schedule": "warmup_cosine"}),
    "parts": ("vision block at a tenth of the learning rate", {"rate_by_part": {"vision": 0.1}}),
    "nodecay": ("no weight decay of norms and biases", {"decays_everything": False}),
    "balanced": ("balanced sampling: every category drawn equally often", {"imbalance": "balanced_sampler"}),
    "weighted": ("class-balanced loss weights", {"imbalance": "class_balanced"}),
    "focal": ("focal loss", {"imbalance": "focal"}),
    "smooth": ("label smoothing of 0.1", {"label_smoothing": 0.1}),
    "ema": ("moving average of the weights over about 100 steps", {"average_decay": 0.99}),
    "light": ("augmentation: brightness and contrast", {"augmentation": "light"}),
    "colour": ("augmentation: colour jitter", {"augmentation": "colour"}),
    "geometric": ("augmentation: small rotations and crops", {"augmentation": "geometric"}),
    "randaugment": ("RandAugment", {"augmentation": "randaugment"}),
    "augmix": ("AugMix", {"augmentation": "augmix"}),
    "hinted": ("no hint dropout", {"hint_dropout": 0.0}),
    "quarter": ("a quarter of the images", {"data_share": 0.25}),
    "full": ("all images", {"data_share": 1.0}),
}  # fmt: skip


def _vary(base: Recipe, description: str, changes: dict[str, object]) -> Recipe:
    return dataclasses.replace(base, description=f"{base.description}; {description}", **changes)  # type: ignore[arg-type]


RECIPES: Final[dict[str, Recipe]] = {
    "best": _BEST,
    "best-product": _vary(_BEST, "without the head, for structured answers", {"head": "none"}),
} | {
    name: recipe
    for base_name, base in (("reference", _REFERENCE), ("tuned", _TUNED), ("sample", _SAMPLE))
    for name, recipe in (
        (base_name, base),
        *((f"{base_name}-{variation}", _vary(base, *how)) for variation, how in _VARIATIONS.items()),
    )
}


def get_recipe(name: str) -> Recipe:
    """Return a recipe by name; raise StageError with the list of names if it does not exist."""
    if name not in RECIPES:
        raise StageError(f"Unknown recipe {name!r}; available: {', '.join(RECIPES)}")
    return RECIPES[name]

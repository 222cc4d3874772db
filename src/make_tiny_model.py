"""Train the embedded stand-in model: a tiny Qwen2-VL that describes drawn packaging.

It is trained on drawings of other seeds than the sample shop's, with descriptions as answers. No answer is a category,
so the model predicts no category before fine-tuning.

In: nothing; with --target product the embedded model.
Out: models/tiny-qwen2-vl/ (weights, processor, README.md with its accuracy).
Command: python src/make_tiny_model.py
         python src/make_tiny_model.py --target product --root sample_product
                  (trains nothing: the embedded model with tokens for the keys of structured answers)
Time: 18 minutes on two cores; with --target product two seconds.
"""

import logging
import os
import random
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from skincare import runlog, stage
from skincare.errors import StageError
from skincare.files import replacing_folder, write_text
from skincare.labels import skincare_labels
from skincare.modeling import loading
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.prompt_encoder import Patches, PromptEncoder
from skincare.paths import TINY_MODEL, Layout
from skincare.prompts import Target
from skincare.runlog import Summary
from skincare.sample import drawing, tiny

logger = logging.getLogger(__name__)

# Larger than the model's input, like photos; the processor resizes it.
_DRAWING_SIDE_PX = 224
_N_TEST = 500
_STRUCTURE_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """Options of the stage."""

    resumes: ClassVar[bool] = False

    target: Target = "category"
    """`product` writes the embedded model with tokens for the keys of structured answers, and trains nothing."""
    out: Path | None = None
    """Output folder; models/tiny-qwen2-vl by default, with --target product models/tiny-product below the root."""
    seed: int = 1_000_000
    """Seed of weights and drawings; the sample shop's seeds are small numbers."""
    n_drawings: int = 44_000
    """Number of training drawings, each used once."""
    batch_size: int = 16
    """Drawings per step."""
    peak_learning_rate: float = 1.5e-3
    """Maximum learning rate of the one-cycle schedule."""


class Drawings(Dataset):
    """Drawings with descriptions; item i depends only on the seed and i."""

    def __init__(self, encoder: PromptEncoder, seed: int, n_drawings: int) -> None:
        self.encoder = encoder
        self.seed = seed
        self.n_drawings = n_drawings

    def __len__(self) -> int:
        """Return the number of drawings."""
        return self.n_drawings

    def __getitem__(self, i: int) -> tuple[Patches, str]:
        """Return the pixels and the description of drawing `i`."""
        rng = random.Random(f"{self.seed}-{i}")
        packaging = drawing.random_packaging(rng)
        # Half of them are front views, half random views.
        view = drawing.View() if rng.random() < 0.5 else drawing.random_view(rng)
        brand_text = "".join(rng.choices(string.ascii_uppercase, k=rng.randint(4, 9)))
        image = drawing.draw(packaging, view, _DRAWING_SIDE_PX, brand_text).image
        return self.encoder.patches(image), drawing.describe(packaging)


def run(config: Config, layout: Layout) -> Summary:
    """Train, evaluate on held-out drawings and save; an existing model is replaced at the end."""
    out = config.out or (layout.tiny_product_model if config.target == "product" else TINY_MODEL)
    if out.is_dir() and any(out.iterdir()) and not (out / "config.json").is_file():
        raise StageError(f"--out {out} contains other files than a model; choose another folder")
    if config.target == "product":
        return _extend(layout, out)
    rng = random.Random(config.seed)
    descriptions = [drawing.describe(drawing.random_packaging(rng)) for _ in range(2000)]
    # The prompt occurs only a few times, so that category names remain several tokens long, as in Qwen2-VL.
    labels = skincare_labels()
    processor = tiny.build_processor([*descriptions, *[labels.system_prompt(), labels.question] * 4])
    encoder = PromptEncoder(processor, labels)
    network = CachedVLM(tiny.build_model(processor.tokenizer, config.seed))
    final_loss = _train(network, encoder, config)
    exact = _share_exact(network.eval(), encoder, Drawings(encoder, config.seed + 1, _N_TEST))
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    runlog.remove_summary("make_tiny_model", layout)
    with replacing_folder(out) as building:
        network.model.save_pretrained(building)
        processor.save_pretrained(building)
        write_text(building / "README.md", _card(config, n_parameters, exact))
    return Summary(
        headline=f"{exact:.1%} of {_N_TEST} new drawings described exactly",
        counts={"drawings": config.n_drawings},
        results={"n_parameters": n_parameters, "share_exact": exact, "n_test": _N_TEST, "final_loss": final_loss},
    )


def _extend(layout: Layout, out: Path) -> Summary:
    """Write the embedded model with tokens for structured answers."""
    processor = loading.load_processor(TINY_MODEL)
    model = loading.load_model(TINY_MODEL, torch.device("cpu"))
    n_added = tiny.add_structure_tokens(model, processor, _STRUCTURE_SEED)
    runlog.remove_summary("make_tiny_model", layout)
    with replacing_folder(out) as building:
        model.save_pretrained(building)
        processor.save_pretrained(building)
        write_text(
            building / "README.md",
            f"# tiny-product\n\nmodels/tiny-qwen2-vl with {n_added} tokens for the keys of structured answers, whose "
            f"embeddings are random (seed {_STRUCTURE_SEED}). No other weight differs, and no structured answer was "
            "trained.\n",
        )
    return Summary(
        headline=f"the embedded model with {n_added} tokens for structured answers, in {out}",
        results={"n_added_tokens": n_added},
    )


def _train(network: CachedVLM, encoder: PromptEncoder, config: Config) -> float:
    """Train all weights for one epoch; return the mean loss of the last 50 steps."""
    drawings = Drawings(encoder, config.seed, config.n_drawings)
    loader: DataLoader = DataLoader(
        drawings, config.batch_size, collate_fn=_collate, num_workers=max(1, (os.cpu_count() or 2) - 1)
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.peak_learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.peak_learning_rate, total_steps=len(loader), pct_start=0.15
    )
    losses: list[float] = []
    with tqdm(total=len(drawings), unit="drawing", disable=None) as bar:
        for pixels, descriptions in loader:
            batch = encoder.batch([one.grid for one in pixels], descriptions)
            loss = network(batch, [one.patches for one in pixels]).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            bar.update(len(pixels))
            bar.set_postfix(loss=f"{sum(losses[-50:]) / len(losses[-50:]):.3f}", refresh=False)
    return sum(losses[-50:]) / len(losses[-50:])


def _share_exact(network: CachedVLM, encoder: PromptEncoder, drawings: Drawings) -> float:
    """Return the share of drawings whose generated description is identical to the truth."""
    n_right = 0
    for start in range(0, len(drawings), 50):
        pixels, descriptions = _collate([drawings[i] for i in range(start, min(start + 50, len(drawings)))])
        batch = encoder.batch([one.grid for one in pixels], padding_side="left")
        for answer, truth in zip(
            network.generate(encoder, batch, network.vision_features(pixels), 40), descriptions, strict=True
        ):
            n_right += encoder.decode(answer.tokens) == truth
    return n_right / len(drawings)


def _collate(items: Sequence[tuple[Patches, str]]) -> tuple[list[Patches], list[str]]:
    return [pixels for pixels, _ in items], [text for _, text in items]


def _card(config: Config, n_parameters: int, exact: float) -> str:
    example: Any = drawing.describe(drawing.random_packaging(random.Random(0)))
    return f"""# tiny-qwen2-vl

A `Qwen2VLForConditionalGeneration` of {n_parameters:,} parameters with its processor. It exists so that the pipeline
can be run and tested in minutes, without a GPU or a download. **It says nothing about Qwen2-VL-2B**: it has seen only
drawings of packaging, and knows no word beyond its descriptions of them.

Made by `python src/make_tiny_model.py` (seed {config.seed}) from {config.n_drawings:,} drawings, each seen once. It
answers every question with a description such as
"{example}"; on {_N_TEST} drawings of another seed {exact:.1%} of its descriptions were right to the word. It was never
given a category as an answer.
"""


def main() -> None:
    """Run the stage from the command line."""
    stage.main("make_tiny_model", Config, run)


if __name__ == "__main__":
    main()

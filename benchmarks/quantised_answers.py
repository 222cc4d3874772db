"""Answers of exported checkpoints, in bfloat16, 8 and 4 bits, compared with those of the training run's model.

Each checkpoint is written as `export.py` writes it and answers the images of val and test twice: by the loader that
`predict.py` and `serve.py` use, and by `pipeline("image-text-to-text")` of transformers. The texts are generated
greedily; label probabilities are those of the loader.

In: a finished sample run (`python src/run_all.py --sample`); needs `pip install bitsandbytes`.
Out: benchmarks/results/quantised_answers.json.
Command: python benchmarks/quantised_answers.py --root sample_run
Time: two minutes on two cores.
"""

import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

import numpy as np
import tyro
from transformers import pipeline

from skincare.dataset.chat import Example, read_dataset
from skincare.exporting.checkpoints import Quantisation, write_checkpoint
from skincare.exporting.source_run import SourceRun, find_run
from skincare.inference.classifier import Classifier
from skincare.inference.predictions import Prediction
from skincare.paths import Layout
from skincare.runlog import environment

logger = logging.getLogger("quantised_answers")

_FORMATS: Final[dict[str, Quantisation]] = {"bfloat16": "none", "8bit": "8bit", "4bit": "4bit"}


@dataclass(frozen=True)
class Config:
    """Options of the benchmark."""

    root: Path = REPOSITORY / "sample_run"
    """Root of a finished sample run."""
    batch_size: int = 8
    """Images per pass of the pipeline."""
    out: Path = REPOSITORY / "benchmarks" / "results" / "quantised_answers.json"
    """Output file."""


@dataclass(frozen=True)
class Answers:
    """The generated and the ranked predictions of a checkpoint, in the order of the images."""

    generated: list[Prediction]
    ranked: list[Prediction]

    @property
    def probabilities(self) -> np.ndarray:
        """Return the (n, n_labels) probabilities of the labels."""
        return np.exp([one.log_probabilities for one in self.ranked])


def main() -> None:
    """Write every checkpoint, compare its answers, and write the results."""
    config = tyro.cli(Config, description=__doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    layout = Layout(config.root.resolve())
    run = find_run(layout)
    examples = sorted(
        (*read_dataset(layout, "val"), *read_dataset(layout, "test")), key=lambda example: example.image_id
    )
    expected = _answers(run.folder, run, examples, layout)
    rows = []
    for name, quantisation in _FORMATS.items():
        with tempfile.TemporaryDirectory() as folder:
            write_checkpoint(run, Path(folder), "bfloat16", quantisation, ())
            found = _answers(Path(folder), run, examples, layout)
            texts = _pipeline_texts(Path(folder), run, examples, layout, config.batch_size)
        rows.append({"format": name, **_compared(expected, found, texts)})
        logger.info("%s", rows[-1])
    results = {
        "n_val_and_test": len(examples),
        "n_products": len({one.product_id for one in examples}),
        "run_accuracy": _accuracy(expected.generated),
        "rows": rows,
        "environment": environment(),
    }
    config.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _answers(folder: Path, run: SourceRun, examples: Sequence[Example], layout: Layout) -> Answers:
    classifier = Classifier.load(folder, run.labels, layout.root)
    found = (classifier.predict(examples, name, classifier.decoder(name)) for name in ("generate", "rank"))
    return Answers(*found)


def _pipeline_texts(
    folder: Path, run: SourceRun, examples: Sequence[Example], layout: Layout, batch_size: int
) -> list[str]:
    generate = pipeline("image-text-to-text", model=str(folder), batch_size=batch_size)
    question = {"type": "text", "text": run.labels.question}
    chats = [
        [{"role": "user", "content": [{"type": "image", "path": str(layout.root / one.image)}, question]}]
        for one in examples
    ]
    return [row[0]["generated_text"] for row in generate(text=chats, return_full_text=False)]


def _compared(expected: Answers, found: Answers, texts: Sequence[str]) -> dict[str, Any]:
    """Return numbers of different answers, accuracies, and differences of the probabilities."""
    differences = np.abs(found.probabilities - expected.probabilities).max(axis=1)
    pairs = list(zip(expected.generated, found.generated, strict=True))
    return {
        "accuracy": _accuracy(found.generated),
        "n_other_text_than_the_run": sum(one.text != other.text for one, other in pairs),
        "n_other_category_than_the_run": sum(one.category != other.category for one, other in pairs),
        "n_pipeline_other_text_than_the_loader": sum(
            one.text != text for one, text in zip(found.generated, texts, strict=True)
        ),
        "n_other_likeliest_label": int(
            (found.probabilities.argmax(axis=1) != expected.probabilities.argmax(axis=1)).sum()
        ),
        "largest_difference_of_a_probability": {
            "median": float(np.median(differences)),
            "p95": float(np.quantile(differences, 0.95)),
            "max": float(differences.max()),
        },
    }


def _accuracy(found: Sequence[Prediction]) -> float:
    return sum(one.category == one.truth for one in found) / len(found)


if __name__ == "__main__":
    main()

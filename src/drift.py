"""Compare a batch of production predictions with the run's predictions on val.

In: JSON lines of predict.py; the reference is log/finetune/<run>/val_ranked.jsonl, or other JSON lines of predict.py
(--reference), which must be used for predictions of the reader or the fusion. Of structured answers
(val_predictions.jsonl, predict.py --target product) the category and its calibrated confidence are compared.
Out: log/drift.json (values, intervals and tests), drift.html.
Command: python src/drift.py answers.jsonl [--reference earlier.jsonl]
Time: a second per 10,000 predictions, and 0.05 s per image whose quality is measured.

Compared are the shares of the categories, the confidence, the shares of abstained and unreadable images, and the
quality metrics of cleaning where the images can be read (--images 0 leaves them out).
Exit code 0: no drift; 3: drift; 2: an input is missing, malformed or too small; 1: failed.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from skincare import stage
from skincare.errors import MissingInputError
from skincare.evaluation import drift, drift_inputs
from skincare.evaluation.drift import Batch, Item
from skincare.files import write_text
from skincare.html_pages import template_environment
from skincare.inference.image_predictor import newest_model
from skincare.paths import Layout
from skincare.runlog import Summary

_DRIFT = 3


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """Options of the stage."""

    predictions: Annotated[Path, tyro.conf.Positional]
    """JSON lines of predict.py: the batch to check."""
    reference: Path | None = None
    """JSON lines of predict.py to compare with, instead of the run's predictions on val."""
    run: str = ""
    """Run of finetune.py; the newest if left out."""
    images: int = 500
    """How many images of each batch to measure, evenly spread; 0: none."""
    min_rows: int = 50
    """Minimum number of predictions for a comparison."""
    page: Path | None = None
    """The page to write; drift.html in the root if left out."""


def run(config: Config, layout: Layout) -> Summary:
    """Compare both batches and write the page; the exit code is 3 if there is drift."""
    reference, source = _reference(config, layout)
    batch = drift_inputs.read_batch(config.predictions, layout.root, config.images)
    for name, one in ((config.predictions, batch), (source, reference)):
        if one.n < config.min_rows:
            raise MissingInputError(
                f"batch of {config.min_rows} predictions", name, f"It holds {one.n}; see --min-rows."
            )
    items, shares = drift.compare(reference, batch), drift.category_shares(reference, batch)
    drifted = [one.name for one in items if one.has_drifted]
    page = config.page or layout.drift_page
    write_text(page, _page(config.predictions, source, (reference, batch), items, shares))
    return Summary(
        headline=f"{batch.n} predictions against {reference.n}: "
        f"{'drift of ' + ', '.join(drifted) if drifted else 'no drift'}; {page}",
        counts={"drifted": len(drifted), "not drifted": len(items) - len(drifted)},
        results={
            "reference": str(source), "n_reference": reference.n, "n": batch.n, "alpha": drift.ALPHA,
            "items": [asdict(one) for one in items], "categories": [asdict(one) for one in shares],
        },
        exit_code=_DRIFT if drifted else 0,
    )  # fmt: skip


def _reference(config: Config, layout: Layout) -> tuple[Batch, Path]:
    if config.reference:
        return drift_inputs.read_batch(config.reference, layout.root, config.images), config.reference
    folder = layout.finetuned_model(config.run) if config.run else newest_model(layout)
    assert folder is not None
    path = layout.finetune_log(folder.name) / "val_ranked.jsonl"
    return drift_inputs.read_val(path, folder, layout, config.images), path


def _page(file: Path, source: Path, batches: tuple[Batch, Batch], items: Sequence[Item], shares: Sequence[Item]) -> str:
    bounds = [one.interval[1] for one in shares if one.interval]
    bounds += [one.reference_interval[1] for one in shares if one.reference_interval]
    return template_environment().get_template("drift.html.j2").render(
        file=file.name, reference_file=source.name, reference=batches[0], batch=batches[1], items=items, shares=shares,
        drifted=[one.name for one in items if one.has_drifted], alpha=drift.ALPHA, widest=max(bounds, default=1.0),
    )  # fmt: skip


def main() -> None:
    """Run the stage from the command line."""
    stage.main("drift", Config, run)


if __name__ == "__main__":
    main()

"""Score stored predictions again, with the current parser and metrics: no model, no images, no network.

In: predictions as the model stages wrote them; by default those of zero_shot.py and of all runs of finetune.py.
Out: the predictions with the current parser's labels, and next to each file its metrics;
log/finetune/<run>/{comparison,baselines}.json, plots/{cm_before_training,cm_after_training}.png if they show these
predictions. With --merge also the metrics with merged categories (metrics_merged.json).
Command: python src/score.py [log/zero_shot/predictions.jsonl] [--merge Toner+Mist]
Time: a second per file.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Final

import tyro

from skincare import runlog, stage
from skincare.errors import MissingInputError
from skincare.labels import labels_of
from skincare.paths import Layout
from skincare.runlog import Summary, to_plain

if TYPE_CHECKING:
    from skincare.evaluation.metrics import Scores

logger = logging.getLogger(__name__)

_TRAINED: Final = "*/test_predictions.jsonl"


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """Options of the stage."""

    resumes: ClassVar[bool] = False

    files: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Files of predictions; by default those of zero_shot.py and finetune.py."""
    merge: tuple[str, ...] = ()
    """Categories to count as one, such as Toner+Mist, in additional metrics."""


def run(config: Config, layout: Layout) -> Summary:
    """Parse and score each file, then update the comparisons of several files."""
    # Importing scipy and matplotlib takes a second, which --help must not wait for.
    from skincare.evaluation import comparison, merging, metrics, rescoring
    from skincare.inference import predictions
    from skincare.inference.answer_parser import PARSER_VERSION

    labels = labels_of(layout)
    groups = merging.parse(config.merge, labels)
    files = config.files or _written(layout)
    if not files:
        raise MissingInputError("predictions", layout.zero_shot, "Make them with `python src/zero_shot.py`.")
    runlog.remove_summary("score", layout)
    n_predictions = n_changed = 0
    accuracies = {}
    for file in files:
        old, new, scores = rescoring.rescore(file, labels)
        n_predictions += len(new)
        n_changed += sum(one.category != other.category for one, other in zip(old, new, strict=True))
        accuracies[to_plain(file)] = scores.accuracy
        if groups:
            merged = rescoring.rescore_merged(file, new, groups, labels)
            logger.info("%s, %s as one: %s", file, ", ".join(config.merge), metrics.headline(merged))
        _redraw(layout, file.resolve(), scores)
    for file in sorted(layout.finetune_log("").glob(_TRAINED)):
        rescoring.compare_with_zero_shot(layout, file.parent, predictions.read_jsonl(file, labels))
        comparison.compare_with_baselines(layout, file.parent)
    return Summary(
        headline=f"{n_predictions} predictions in {len(files)} files, {n_changed} of them parsed differently",
        counts={"parsed equally": n_predictions - n_changed, "parsed differently": n_changed},
        results={"parser_version": PARSER_VERSION, "accuracies": accuracies},
    )


def _written(layout: Layout) -> tuple[Path, ...]:
    """Return the files of predictions on test images that the stages have written."""
    zero_shot = layout.zero_shot / "predictions.jsonl"
    trained = sorted(layout.finetune_log("").glob(_TRAINED))
    return (*([zero_shot] if zero_shot.is_file() else []), *trained)


def _redraw(layout: Layout, file: Path, scores: "Scores") -> None:
    """Draw the report's confusion matrix if the file is of the untrained model or of the last training run."""
    from skincare.evaluation import confusion_plot

    last_run = ""
    if layout.summary("finetune").is_file():
        last_run = runlog.last_training_run(layout)
    if file == layout.zero_shot / "predictions.jsonl":
        confusion_plot.draw_confusion_matrix(scores, "Before training", layout.plot("cm_before_training"))
    elif last_run and file == layout.finetune_log(last_run) / "test_predictions.jsonl":
        confusion_plot.draw_confusion_matrix(scores, "After training", layout.plot("cm_after_training"))


def main() -> None:
    """Run the stage from the command line."""
    stage.main("score", Config, run)


if __name__ == "__main__":
    main()

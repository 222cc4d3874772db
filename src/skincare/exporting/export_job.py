"""One export: a training run and options in, a complete folder with its model card and export.json out."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from skincare import runlog
from skincare.dataset.chat import Example
from skincare.dataset.image_files import ImageFiles
from skincare.errors import StageError
from skincare.evaluation import field_calibrators, field_policy
from skincare.evaluation.product_metrics import compare_documents
from skincare.exporting import card, checkpoints, evaluation
from skincare.exporting.checkpoints import Quantisation, WeightDtype
from skincare.exporting.evaluation import Evaluation
from skincare.exporting.layer_pruning import n_fixed_layers
from skincare.exporting.pruning_experiment import PruningExperiment, prune_stepwise
from skincare.exporting.source_run import SourceRun
from skincare.files import write_json, write_text
from skincare.inference.classifier import Classifier
from skincare.inference.product_answers import scored_predictions
from skincare.modeling.loading import checkpoint_hashes, default_device, load_config
from skincare.modeling.quantisation import bitsandbytes_config
from skincare.prompts import target_of

logger = logging.getLogger(__name__)

RECORD_FILE: Final = "export.json"
_VERSION: Final = 1
_SHORT_NAMES: Final = {"bfloat16": "bf16", "float32": "fp32"}


@dataclass(frozen=True)
class ExportOptions:
    """Format of the weights, number of dropped language layers, and images per forward pass of the evaluation."""

    dtype: WeightDtype = "bfloat16"
    quantisation: Quantisation = "none"
    n_dropped: int = 0
    batch_size: int = 16

    @property
    def format(self) -> str:
        """Return what the weights are stored as."""
        return self.dtype if self.quantisation == "none" else f"bitsandbytes {self.quantisation}"

    def name(self, run: str) -> str:
        """Return the default name of an export of a run."""
        weights = _SHORT_NAMES[self.dtype] if self.quantisation == "none" else self.quantisation
        return f"{run}-drop{self.n_dropped}-{weights}" if self.n_dropped else f"{run}-{weights}"


class ExportJob:
    """Writes and evaluates one export; without `val` nothing is evaluated.

    absent: product id -> fields of structured answers that the product is known to lack.
    `experiment` holds the pruning experiment after `write`, if layers are dropped.
    """

    def __init__(
        self, run: SourceRun, options: ExportOptions, val: Sequence[Example], files: ImageFiles,
        prediction_cache: Path | None = None, absent: Mapping[str, frozenset[str]] | None = None,
    ) -> None:  # fmt: skip
        self.run = run
        self.options = options
        self.val = val
        self.experiment: PruningExperiment | None = None
        self._files = files
        self._prediction_cache = prediction_cache
        self._absent = absent

    def check(self, parent: Path) -> None:
        """Raise StageError before anything is loaded if the export cannot succeed."""
        config = load_config(self.run.folder)
        n_layers, n_fixed = config.text_config.num_hidden_layers, max(1, n_fixed_layers(config))
        if self.options.n_dropped > n_layers - n_fixed:
            raise StageError(
                f"--drop-layers {self.options.n_dropped}: of its {n_layers} language layers, the model needs {n_fixed}"
            )
        if bits := checkpoints.n_bits(self.options.quantisation):
            bitsandbytes_config(bits)
        checkpoints.check_disk(self.run, parent, self.options.dtype, self.options.quantisation)

    def write(self, folder: Path, name: str) -> dict[str, Any]:
        """Write all files into an existing empty folder; return the content of export.json."""
        before = self._evaluate(self.run.folder, "training run") if self.val else None
        if self.options.n_dropped:
            self.experiment = self._prune()
        dropped = self.experiment.order if self.experiment else ()
        n_parameters = checkpoints.write_checkpoint(
            self.run, folder, self.options.dtype, self.options.quantisation, dropped
        )
        after = self._evaluate(folder, "export") if self.val else None
        documents = None
        if before and after and target_of(self.run.labels) == "product":
            of_run, of_export = (
                scored_predictions(self.val, one.predictions, self._absent) for one in (before, after)
            )  # fmt: skip
            documents = compare_documents(of_run, of_export)
            write_json(folder / field_policy.FILE, field_calibrators.summarise(of_export, ()))
        elif after and after.ranked:
            write_json(folder / "confidence.json", evaluation.thresholds(after, self.run.labels))
        compared = evaluation.compare(before, after, documents) if before and after else None
        report = logger.warning if compared and compared["verdict"] == "worse" else logger.info
        report("%s: %s", name, evaluation.describe(compared))
        record = {
            **self._facts(folder, name),
            "n_parameters": n_parameters,
            "verdict": evaluation.describe(compared),
            "evaluation": {
                "run": before and _row("training run", self.run.folder, before),
                "export": after and _row("this export", folder, after),
                "comparison": compared,
                "batch_size": self.options.batch_size,
            },
            "pruning": self.experiment and self.experiment.to_json(),
            # Without the command: it may hold paths of this machine, and the folder is published.
            **{key: value for key, value in runlog.environment().items() if key != "command"},
        }
        # The card lists the files; export.json has the hash of the card, and none of itself.
        write_text(folder / "README.md", card.card(self.run, record | {"files": card.hashes(folder)}))
        record["files"] = card.hashes(folder)
        write_json(folder / RECORD_FILE, record)
        return record

    def _facts(self, folder: Path, name: str) -> dict[str, Any]:
        config = load_config(folder, accepts_quantised=True)
        return {
            "version": _VERSION,
            "name": name,
            "run": self.run.name,
            "source": checkpoint_hashes(self.run.folder),
            "base_model": self.run.base_model,
            "model_type": config.model_type,
            "format": self.options.format,
            "quantisation": self.options.quantisation,
            "n_layers": config.text_config.num_hidden_layers,
            "n_layers_before": config.text_config.num_hidden_layers + self.options.n_dropped,
            "dropped_layers": sorted(self.experiment.order) if self.experiment else [],
            "labels": self.run.labels.digest,
            "device": str(default_device()),
        }

    def _load(self, folder: Path) -> Classifier:
        return Classifier.load(
            folder, self.run.labels, self._files, prediction_cache=self._prediction_cache,
            batch_size=self.options.batch_size,
        )  # fmt: skip

    def _evaluate(self, folder: Path, title: str) -> Evaluation:
        found = evaluation.evaluate(self._load(folder), self.val, title, self.options.batch_size)
        checkpoints.release_memory()
        logger.info("val, %s: accuracy %.1f %%, %.2f images/s", title, 100 * found.accuracy, found.images_per_second)
        return found

    def _prune(self) -> PruningExperiment:
        classifier = Classifier.load(
            self.run.folder, self.run.labels, self._files, dtype=self.options.dtype, batch_size=self.options.batch_size
        )
        found = prune_stepwise(classifier, self.val, self.options.n_dropped, self.options.batch_size)
        for row in found.rows:
            logger.info(
                "%d layers dropped %s: accuracy %.1f %%, %.2f images/s",
                row.n_dropped, list(row.dropped), 100 * row.accuracy, row.images_per_second,
            )  # fmt: skip
        checkpoints.release_memory()
        return found


def _row(label: str, folder: Path, found: Evaluation) -> dict[str, Any]:
    return {
        "label": label,
        "disk_bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        "weight_bytes": found.weight_bytes,
        "images_per_second": found.images_per_second,
        "accuracy": found.accuracy,
    }

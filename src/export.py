"""Export a fine-tuned model for production: merged, quantised or pruned, with everything that serving needs.

In: models/finetuned/<run>/ (safetensors only), clean_dataset/val.json and its images for the evaluation.
Out: models/exported/<name>/ (loads with from_pretrained, pipeline() and vLLM; README.md is the model card, export.json
has the evaluation and the hash of every file), log/export/<name>.json, plots/pruning_<name>.png.
Command: python src/export.py [--run NAME]
         python src/export.py --quantize 4bit   (or 8bit; bitsandbytes)
         python src/export.py --drop-layers 4   (layer pruning; heal with finetune.py, see docs/export.md)
Time: some seconds for the embedded sample; val is predicted by the training run's model and by the exported one.
"""

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from skincare import stage
from skincare.errors import MissingInputError, StageError
from skincare.files import replacing_folder, write_json
from skincare.paths import Layout
from skincare.runlog import Summary

if TYPE_CHECKING:
    from skincare.dataset.chat import Example
    from skincare.dataset.image_files import ImageFiles
    from skincare.labels import Labels

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """Options of the stage."""

    resumes: ClassVar[bool] = False

    run: str = ""
    """Run of finetune.py; by default the last one."""
    output: Path | None = None
    """Folder to write; models/exported/<run>-<format>/ if left out."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Dtype of the weights that are not quantised; finetune.py keeps float32 where bfloat16 rounds the update away."""
    quantize: Literal["none", "8bit", "4bit"] = "none"
    """Quantise the weights of the language layers with bitsandbytes."""
    drop_layers: int = 0
    """Drop this number of language layers, those of least influence on val; each number up to it is evaluated."""
    evaluate: bool = True
    """Compare accuracy and speed on val with the training run; --no-evaluate leaves it out."""
    max_val_images: int = 0
    """Evaluate on at most about this many val images, whole products drawn at random; 0: all."""
    dataset: str = ""
    """Folder or URL of shards written by export_dataset.py; clean_dataset/ if left out."""
    batch_size: int = 16
    """Images per forward pass."""
    overwrite: bool = False
    """Replace an export of this name."""
    push_to_hub: str = ""
    """Also upload to this repository of the Hugging Face hub (OWNER/NAME, created as private), with HF_TOKEN."""


def run(config: Config, layout: Layout) -> Summary:
    """Write the export to a temporary folder, evaluate it there, and move it to its place."""
    _check(config)
    # Importing torch and transformers takes seconds, which --help must not wait for.
    from skincare.exporting import hub, source_run
    from skincare.exporting.export_job import ExportJob, ExportOptions
    from skincare.product import store
    from skincare.prompts import target_of

    if config.push_to_hub:
        hub.check_upload(config.push_to_hub)
    source = source_run.find_run(layout, config.run)
    options = ExportOptions(config.dtype, config.quantize, config.drop_layers, config.batch_size)
    target = config.output.resolve() if config.output else layout.exported_model(options.name(source.name))
    _check_target(config, source.folder.resolve(), target)
    absent = store.read_absent_fields(layout.product_facts) if target_of(source.labels) == "product" else {}
    job = ExportJob(source, options, *_val(config, layout, source.labels), layout.answer_cache, absent)
    job.check(target.parent)
    with replacing_folder(target) as building:
        record = job.write(building, target.name)
    write_json(layout.export_record(target.name), record)
    if job.experiment:
        from skincare.exporting.pruning_plot import draw_pruning

        draw_pruning(job.experiment, len(job.val), layout.plot(f"pruning_{target.name}"))
    address = hub.upload(target, [*record["files"], "export.json"], config.push_to_hub) if config.push_to_hub else ""
    return Summary(
        headline=f"{target}: {record['verdict']}",
        counts={"val images": len(job.val), "files": len(record["files"]) + 1},
        results={"folder": target, "hub": address, **{key: record[key] for key in ("run", "format", "dropped_layers")}},
    )


def _check(config: Config) -> None:
    """Raise StageError for numbers out of range and options that contradict each other."""
    if config.batch_size < 1:
        raise StageError(f"--batch-size {config.batch_size} is below 1")
    if config.drop_layers < 0 or config.max_val_images < 0:
        raise StageError("--drop-layers and --max-val-images must not be negative")
    if config.drop_layers and not config.evaluate:
        raise StageError("--drop-layers chooses the layers on val: leave --no-evaluate out")
    if config.quantize != "none" and config.dtype != "bfloat16":
        raise StageError("--quantize keeps the other weights in bfloat16: leave --dtype out")


def _check_target(config: Config, source: Path, target: Path) -> None:
    """Raise StageError if the export would replace anything but an earlier export."""
    if target == source or target.is_relative_to(source) or source.is_relative_to(target):
        raise StageError(f"--output {target}: the run itself lies there; name another folder")
    if not target.exists() and not target.is_symlink():
        return
    if not config.overwrite:
        raise StageError(f"{target} exists already; replace it with --overwrite, or name another --output")
    if target.is_symlink() or not (target / "export.json").is_file():
        raise StageError(f"{target}: --overwrite replaces only a folder that this stage has written")


def _val(config: Config, layout: Layout, labels: "Labels") -> "tuple[list[Example], ImageFiles]":
    """Return the val images of the evaluation, none without one, and the reader of their files."""
    from skincare.dataset import dataset_source
    from skincare.dataset.image_files import FolderImages

    if not config.evaluate:
        return [], FolderImages(layout.root)
    try:
        examples = dataset_source.read_parts(config.dataset, layout)["val"]
    except MissingInputError as error:
        what, where, remedy = error.args
        raise MissingInputError(what, where, f"{remedy} Or leave the evaluation out with --no-evaluate.") from error
    if any(one.question != labels.question or one.category not in labels.names for one in examples):
        raise StageError("val has other labels or another question than the run; name its labels with --labels")
    return _drawn(examples, config.max_val_images), dataset_source.image_files(config.dataset, layout)


def _drawn(examples: "Sequence[Example]", n_images: int) -> "list[Example]":
    """Return the images of products drawn at random until there are `n_images`; all of them for 0."""
    products = sorted({one.product_id for one in examples})
    random.Random(0).shuffle(products)
    rank = {product: i for i, product in enumerate(products)}
    ordered = sorted(examples, key=lambda one: (rank[one.product_id], one.image_id))
    if not n_images or n_images >= len(ordered):
        return list(examples)
    last = ordered[n_images - 1].product_id
    return [one for one in ordered if rank[one.product_id] <= rank[last]]


def main() -> None:
    """Run the stage from the command line."""
    stage.main("export", Config, run)


if __name__ == "__main__":
    main()

"""What each stage reads and writes: the files and folders whose content a manifest records."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from skincare.paths import SPLITS, Layout


@dataclass(frozen=True)
class Artifacts:
    """Paths of a run; those that do not exist are left out of its manifest."""

    inputs: tuple[Path, ...] = ()
    outputs: tuple[Path, ...] = ()


def artifacts_of(stage: str, layout: Layout, config: Any, results: Mapping[str, Any]) -> Artifacts:
    """Return the inputs and outputs of a finished run of a stage.

    The labels file and a model in a folder are inputs of every stage that was given one. The training run that a
    stage worked on comes from its results, else from its options.
    """
    if stage not in _STAGES:
        return Artifacts()
    name = str(results.get("run") or getattr(config, "run", "") or "")
    found = _STAGES[stage](layout, name)
    # An export goes where its options say.
    written = [Path(results["folder"])] if stage == "export" and results.get("folder") else []
    return Artifacts((*found.inputs, *_given(layout, config)), (*found.outputs, *written))


def _given(layout: Layout, config: Any) -> Iterable[Path]:
    if layout.labels_file is not None:
        yield layout.labels_file
    model = getattr(config, "model", None)
    if model and Path(model).is_dir():
        yield Path(model).resolve()


def _dataset(layout: Layout) -> tuple[Path, ...]:
    """Return the dataset with its images, as the model stages read it."""
    return (*(layout.dataset(split) for split in SPLITS), layout.clean_images, layout.cropped_images)


def _tables(layout: Layout) -> tuple[Path, ...]:
    return (layout.images_table, layout.metadata_table, layout.failures_table, layout.product_images)


def _build_dataset(layout: Layout, _: str) -> Artifacts:
    tables = (layout.catalogue, layout.clean_table, layout.metadata_table, layout.pack_text, layout.product_facts)
    outputs = (*(layout.dataset(split) for split in SPLITS), layout.split_manifest)
    return Artifacts((*tables, layout.clean_images, layout.crop_table), outputs)


def _finetune(layout: Layout, run: str) -> Artifacts:
    log = layout.finetune_log(run)
    files = sorted(path for path in log.glob("*") if path.suffix in (".csv", ".jsonl"))
    inputs = (*_dataset(layout), *_facts(layout, run))
    return Artifacts(inputs, (layout.finetuned_model(run), *files, log / "manifest.json"))


def _facts(layout: Layout, run: str) -> tuple[Path, ...]:
    """Return the facts of the products, if the run's answers are structured."""
    return (layout.product_facts,) if (layout.finetune_log(run) / "field_confidence.json").is_file() else ()


def _explain(layout: Layout, run: str) -> Artifacts:
    log = layout.finetune_log(run)
    # Structured answers have no ranking of labels.
    ranked = log / "test_ranked.jsonl"
    predictions = ranked if ranked.is_file() else log / "test_predictions.jsonl"
    inputs = (layout.dataset("test"), layout.finetuned_model(run), predictions)
    return Artifacts(inputs, (layout.root / "plots" / "explain",))


def _fuse(layout: Layout, run: str) -> Artifacts:
    log = layout.finetune_log(run)
    predictions = (log / "val_ranked.jsonl", log / "test_ranked.jsonl", log / "test_predictions.jsonl")
    outputs = (layout.finetuned_model(run), log / "test_reader.jsonl", log / "test_fused.jsonl", log / "fusion.json")
    return Artifacts((*_dataset(layout), *_facts(layout, run), layout.pack_text, *predictions), outputs)


def _report(layout: Layout, _: str) -> Artifacts:
    # It writes the model cards into the models' folders.
    cards = sorted(layout.finetuned_model("any").parent.glob("*/README.md"))
    return Artifacts((), (layout.report_markdown, layout.report_html, *(card.parent for card in cards)))


_STAGES: Final[dict[str, Callable[[Layout, str], Artifacts]]] = {
    "sample_shop": lambda layout, _: Artifacts((), (layout.catalogue, layout.shop_truth)),
    "scrape": lambda layout, _: Artifacts((layout.catalogue,), _tables(layout)),
    "import_images": lambda layout, _: Artifacts((), (layout.catalogue, *_tables(layout))),
    "clean": lambda layout, _: Artifacts(
        (layout.catalogue, *_tables(layout)), (layout.clean_table, layout.rejected_table, layout.clean_images)
    ),
    "crop": lambda layout, _: Artifacts(
        (layout.clean_table, layout.clean_images), (layout.crop_table, layout.cropped_images)
    ),
    "read_text": lambda layout, _: Artifacts((layout.clean_table, layout.clean_images), (layout.pack_text,)),
    "product_facts": lambda layout, _: Artifacts(
        (layout.catalogue, layout.metadata_table, layout.stated_facts), (layout.product_facts,)
    ),
    "build_dataset": _build_dataset,
    "export_dataset": lambda layout, _: Artifacts(_dataset(layout), (layout.root / "exports",)),
    "baselines": lambda layout, _: Artifacts((*_dataset(layout), layout.pack_text), (layout.baselines,)),
    "zero_shot": lambda layout, _: Artifacts(_dataset(layout), (layout.zero_shot,)),
    "ablations": lambda layout, _: Artifacts(_dataset(layout), (layout.ablations,)),
    "finetune": _finetune,
    "compare_recipes": lambda layout, _: Artifacts(
        _dataset(layout), (layout.comparison_table, layout.comparison_results)
    ),
    "fuse": _fuse,
    "explain": _explain,
    "export": lambda layout, run: Artifacts((*_dataset(layout), *_facts(layout, run), layout.finetuned_model(run)), ()),
    "drift": lambda layout, run: Artifacts((layout.finetune_log(run) / "val_predictions.jsonl",), ()),
    "score_products": lambda layout, _: Artifacts(
        (layout.product_facts, layout.pack_text), (layout.root / "log" / "products",)
    ),
    "report": _report,
}

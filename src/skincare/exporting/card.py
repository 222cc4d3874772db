"""The model card of an exported folder, and the hashes of its files: the record of the export in, README.md out."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from skincare.exporting import evaluation
from skincare.exporting.source_run import SourceRun
from skincare.paths import REPOSITORY
from skincare.prompts import target_of
from skincare.reporting.model_card import is_hub_name, licence_of
from skincare.reporting.report_pages import environment
from skincare.runs.content import sha256_of


def card(run: SourceRun, record: dict[str, Any]) -> str:
    """Return the card of an export; `record` is the content of its export.json."""
    context = {
        "run": run,
        "record": record,
        "labels": run.labels,
        "variants": [one for one in (record["evaluation"]["run"], record["evaluation"]["export"]) if one],
        "verdict": evaluation.describe(record["evaluation"]["comparison"]),
        "files": _files(record),
        "is_drawings_only": record["n_parameters"] < 10_000_000,
        "is_product": target_of(run.labels) == "product",
        "is_apache": licence_of(run.base_model) == "apache-2.0",
    }
    text = environment(autoescape=False).get_template("export_card.md.j2").render(context)
    return f"---\n{_metadata(run, record).to_yaml()}\n---\n\n{text}"


def _metadata(run: SourceRun, record: dict[str, Any]) -> ModelCardData:
    is_on_hub = is_hub_name(run.base_model) and not (REPOSITORY / run.base_model).exists()
    relation = "finetune" if record["quantisation"] == "none" else "quantized"
    known: dict[str, Any] = {"base_model": run.base_model, "base_model_relation": relation} if is_on_hub else {}
    return ModelCardData(
        **known,
        language="en",
        license=licence_of(run.base_model),
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=[record["model_type"], "image-classification", *run.labels.domain.split()],
        model_name=record["name"],
    )


def _files(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Return name and meaning of the folder's files that are not part of every Hugging Face checkpoint."""
    meanings = {
        "labels.toml": "the labels with aliases, families, question and instruction, for `--labels`",
        "labels.json": "the same, as `predict.py` reads it",
        "confidence.json": "temperature and abstention thresholds, chosen on val with these weights",
        "field_confidence.json": "calibrators and thresholds of the fields, chosen on val with these weights",
        "classification_head.safetensors": "the classification head, which `predict.py` uses",
        "hints.json": "the hints that the model was trained with",
        "fusion.json": "weights of the fusion with the reader, fitted with the weights of the training run",
        "product_fusion.json": "fusion of the fields with the reader's, fitted with the weights of the training run",
        "reader/reader.json": "the reader of packs that the fusion needs",
        "export.json": "how this folder was made, its evaluation, and the SHA-256 of every file",
    }
    return [(name, text) for name, text in meanings.items() if name in record["files"] or name == "export.json"]


def hashes(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of every file below a folder, by its relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {"sha256": sha256_of(path), "bytes": path.stat().st_size} for path in files
    }

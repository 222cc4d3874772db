"""The model card of a fine-tuned model: the README.md of its folder, with metadata for the Hugging Face hub."""

import re
from typing import Any, Final

from huggingface_hub import EvalResult, ModelCardData

from skincare.evaluation.metrics import Scores
from skincare.labels import Labels
from skincare.prompts import labels_for
from skincare.reporting import export_views, product_views, report_texts, report_views
from skincare.reporting.report_data import ReportData
from skincare.reporting.report_pages import environment

# The models that are licensed under Apache 2.0; the licence of any other name is unknown.
_APACHE: Final = re.compile(r"Qwen/(Qwen2-VL-[27]B(-Instruct)?|Qwen3-VL-2B-Instruct)")
_HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def card(data: ReportData) -> str:
    """Return the card of the last run that finetune.py finished."""
    assert data.after is not None
    finetune = data.stages["finetune"]
    context = {
        "data": data,
        "notice": report_texts.notice(data),
        "scores": data.after,
        "table": report_views.headline_table(data),
        "categories": data.labels.names,
        "question": labels_for(data.target, data.labels).question,
        "finetune": finetune,
        "export_rows": export_views.rows(data),
        "export_note": export_views.note(data),
        "has_adapter": bool(finetune["results"]["recipe_settings"].get("adapter")),
        "dataset": data.stages.get("build_dataset"),
        "hint_sources": report_texts.HINT_SOURCES,
        "products": product_views.card_view(data),
        "is_apache": licence_of(finetune["results"]["model"]) == "apache-2.0",
    }
    text = environment(autoescape=False).get_template("model_card.md.j2").render(context)
    return f"---\n{_metadata(data, data.after).to_yaml()}\n---\n\n{text}"


def licence_of(base: str) -> str:
    """Return the licence of a base model as the hub names it; unknown for all but the models known here."""
    return "apache-2.0" if _APACHE.fullmatch(base) else "unknown"


def is_hub_name(base: str) -> bool:
    """Return whether a base model could be named so on the hub."""
    return bool(_HUB_NAME.fullmatch(base))


def _metadata(data: ReportData, scores: Scores) -> ModelCardData:
    base = data.stages["finetune"]["results"]["model"]
    is_on_hub = is_hub_name(base) and not data.is_embedded_model
    known: dict[str, Any] = {"base_model": base, "base_model_relation": "finetune"} if is_on_hub else {}
    return ModelCardData(
        **known,
        language="en",
        license=licence_of(base),
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=[
            "image-classification",
            *data.labels.domain.split(),
            *(["test-model"] if data.is_embedded_model else []),
        ],
        model_name="-".join([*data.labels.domain.split(), data.stages["finetune"]["results"]["run"]]),
        eval_results=[
            *(_result(scores, data.labels, key, kind, name) for key, kind, name in _RESULTS),
            *_document_result(data),
        ],
    )


def _document_result(data: ReportData) -> list[EvalResult]:
    """Return the ANLS* of whole structured answers, where the model was scored."""
    found = product_views.card_view(data).get("document")
    if not found:
        return []
    low, high = found["document_low"], found["document_high"]
    return [
        EvalResult(
            task_type="image-to-text",
            task_name=f"Structured description of a {data.labels.product}",
            dataset_type=f"{data.labels.product}s".replace(" ", "-"),
            dataset_name=f"Test split: {found['n']} images of {found['n_products']} products",
            dataset_split="test",
            metric_type="anls",
            metric_name=f"ANLS* of whole answers (95 % interval {low:.3f} to {high:.3f})",
            metric_value=round(found["document"], 4),
        )
    ]


_RESULTS: Final = (
    ("accuracy", "accuracy", "Accuracy"),
    ("f1_macro", "f1", "Macro F1"),
    ("coverage", "coverage", "Share of outputs that name a category"),
)


def _result(scores: Scores, labels: Labels, key: str, kind: str, name: str) -> EvalResult:
    low, high = getattr(scores, f"{key}_low"), getattr(scores, f"{key}_high")
    return EvalResult(
        task_type="image-classification",
        task_name=f"Category of a {labels.product}",
        dataset_type=f"{labels.product}s".replace(" ", "-"),
        dataset_name=f"Test split: {scores.n} images of {scores.n_products} products",
        dataset_split="test",
        metric_type=kind,
        metric_name=f"{name} (95 % interval {low:.3f} to {high:.3f})",
        metric_value=round(getattr(scores, key), 4),
    )

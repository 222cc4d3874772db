"""The check of an exported model, as rows and a sentence of report and model card."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from skincare.reporting.report_data import ReportData
from skincare.reporting.report_views import percent


class ExportRow(NamedTuple):
    """Metrics on val of one form of the trained weights."""

    label: str
    loss: str
    accuracy: str
    other_answers: str


def rows(data: ReportData) -> list[ExportRow]:
    """Return the metrics on val in training and after the export; empty if the run did not measure them."""
    check = _check(data)
    if not check:
        return []
    labels = {
        "in training": "In training, the selected epoch",
        "exported": f"The exported folder{', loaded in float32 as it specifies' if check['is_fp32'] else ''}",
        "rounded": f"The same, loaded in {check['checkpoint_dtype']}",
    }
    return [
        ExportRow(
            labels[name], f"{row['loss']:.4f}", percent(row["accuracy"]),
            "" if row["n_other_answers"] is None else f"{row['n_other_answers']} of {check['n_val']}",
        )
        for name, row in check["val"].items()
    ]  # fmt: skip


def note(data: ReportData) -> str:
    """Return how many weights training changed, before and after rounding; empty if the run did not measure it."""
    check = _check(data)
    if not check:
        return ""
    if not check["n_weights"]:
        return "Training changed no weight of the model itself."
    changed, rounded = (check[key] / check["n_weights"] for key in ("n_changed", "n_changed_rounded"))
    text = f"Training changed {percent(changed)} of the {check['n_weights']:,} trainable weights"
    if not check["is_fp32"] or "rounded" not in check["val"]:
        return f"{text}; the folder stores them in the dtype of the training."
    return (
        f"{text}; rounded to {check['checkpoint_dtype']}, {percent(rounded)} would differ from the base model's. The "
        "folder stores them in float32."
    )


def _check(data: ReportData) -> Mapping[str, Any]:
    return data.stages.get("finetune", {}).get("results", {}).get("export", {})

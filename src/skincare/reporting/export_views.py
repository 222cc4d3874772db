"""What the export of a trained model keeps of it, in the words and rows of report and model card."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from skincare.reporting.report_data import ReportData
from skincare.reporting.report_views import percent


class ExportRow(NamedTuple):
    """Val as one form of the trained weights answers it."""

    label: str
    loss: str
    accuracy: str
    other_answers: str


def rows(data: ReportData) -> list[ExportRow]:
    """Return what became of val on its way out of training; nothing where the run did not measure it."""
    check = _check(data)
    if not check:
        return []
    labels = {
        "in training": "In training, the chosen epoch",
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
    """Return in words how much of what was learnt fewer bits would hold; empty where the run did not measure it."""
    check = _check(data)
    if not check:
        return ""
    if not check["n_weights"]:
        return "No weight of the model itself was trained."
    changed, rounded = (check[key] / check["n_weights"] for key in ("n_changed", "n_changed_rounded"))
    text = f"Training changed {percent(changed)} of the {check['n_weights']:,} weights that it may change"
    if not check["is_fp32"] or "rounded" not in check["val"]:
        return f"{text}; the folder holds them as they were trained."
    return (
        f"{text}; rounded to {check['checkpoint_dtype']}, {percent(rounded)} would differ from the base model's. The "
        "folder holds them in float32."
    )


def _check(data: ReportData) -> Mapping[str, Any]:
    return data.stages.get("finetune", {}).get("results", {}).get("export", {})

"""The comparison of model and reader, as a sentence and rows of the report."""

from typing import NamedTuple

from skincare.reporting.report_data import ReportData


def reader_verdict(data: ReportData) -> str:
    """Return a sentence that says whether the model beats the reader; empty without a comparison."""
    found = [one for one in data.fusion.get("comparisons", ()) if (one["before"], one["after"]) == ("reader", "model")]
    if not found:
        return ""
    one = found[0]
    difference = (
        f"{100 * one['difference']:+.1f} points ({100 * one['difference_low']:+.1f} to "
        f"{100 * one['difference_high']:+.1f}) on the same {one['n']} images"
    )
    if one["difference_low"] > 0:
        return f"The model beats reading the text on the pack: {difference}."
    if one["difference_high"] < 0:
        return f"The model is worse than reading the text on the pack, which needs no model: {difference}."
    return f"The model does not beat reading the text on the pack, which needs no model: {difference}."


class FusedComparison(NamedTuple):
    """The difference of two predictors on the same images, in points, with the 95 % interval over products."""

    label: str
    difference: float
    low: float
    high: float
    mcnemar_p: float
    products_p: float


def fused_comparisons(data: ReportData) -> list[FusedComparison]:
    """Return the paired comparisons of reader, model, fusion and name."""
    labels = {row["name"]: row["label"] for row in data.fusion.get("rows", ())}
    return [
        FusedComparison(
            label=f"{labels[one['after']]} minus {labels[one['before']]}",
            difference=100 * one["difference"],
            low=100 * one["difference_low"],
            high=100 * one["difference_high"],
            mcnemar_p=one["mcnemar_p"],
            products_p=one["products_p"],
        )
        for one in data.fusion.get("comparisons", ())
    ]

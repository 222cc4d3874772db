"""Every plot of the pipeline: data in, a PNG out; the same data give the same bytes.

Colours are those of Okabe and Ito, which colour-blind readers can distinguish.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

from skincare.cleaning.quality import Sharpness
from skincare.evaluation.metrics import Scores
from skincare.files import write_bytes
from skincare.labels import UNKNOWN
from skincare.paths import SPLITS
from skincare.tables import HistoryRow

# Before pyplot is imported, which otherwise searches for a display.
mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

BLUE: Final = "#0072B2"
ORANGE: Final = "#D55E00"
GREEN: Final = "#009E73"
GREY: Final = "#6B7280"
_STYLE: Final[dict[str, Any]] = {
    "figure.dpi": 120,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E5E7EB",
    "legend.frameon": False,
}


def save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG without a time stamp, and forget it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    plt.close(figure)
    write_bytes(path, buffer.getvalue())


def _new(title: str, width: float = 7.2, height: float = 4.2) -> tuple[Figure, Any]:
    with plt.rc_context(_STYLE):  # type: ignore[arg-type]
        figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.set_title(title, loc="left", fontweight="bold")
    return figure, axes


def panels(n: int, width: float, height: float) -> tuple[Figure, Any]:
    """Return a figure of so many axes side by side, in the style of all."""
    with plt.rc_context(_STYLE):  # type: ignore[arg-type]
        return plt.subplots(1, n, figsize=(width, height), layout="constrained")


def draw_blur_histogram(sharpness: Sequence[Sharpness], limit: float, path: Path) -> None:
    """Draw how sharp the images are, with the limit and what other limits would keep."""
    figure, axes = _new("Sharpness of all images that could be read")
    content = np.maximum([one.content for one in sharpness], 1e-1)
    plain = np.maximum([one.plain for one in sharpness], 1e-1)
    top = max(1e3, float(content.max(initial=1.0)), float(plain.max(initial=1.0)))
    bins = np.geomspace(1e-1, top * 1.05, 50)
    counts, of_frames = (np.histogram(values, bins)[0] for values in (content, plain))
    axes.stairs(counts, bins, fill=True, color=BLUE, alpha=0.75, label="content, one size and contrast (decides)")
    axes.stairs(of_frames, bins, color=GREY, linewidth=1.5, label="whole frame (the reference's measure)")
    axes.axvline(limit, color=ORANGE, linewidth=2)
    for other in (20, 40, 60, 80, 100, 150):
        if other != limit:
            axes.axvline(other, color=GREY, linewidth=0.6, linestyle=":")
    kept = "\n".join(
        f"limit {value:g}: keeps {np.mean(content >= value):.1%}" + ("   <- used" if value == limit else "")
        for value in sorted({20.0, 40.0, 60.0, 80.0, 100.0, 150.0, limit})
    )
    axes.text(0.02, 0.72, kept, transform=axes.transAxes, va="top", family="monospace", fontsize=8)
    axes.set_xscale("log")
    axes.set(xlabel="variance of the Laplacian (squared grey levels, log scale)", ylabel="images")
    axes.legend(loc="upper left", fontsize=8)
    save(figure, path)


def draw_dataset_split(counts: Mapping[str, Mapping[str, int]], categories: Sequence[str], path: Path) -> None:
    """Draw images per category and split; `counts` is split -> category -> images."""
    figure, axes = _new("Images per category and split", height=5)
    totals = {category: sum(counts[split].get(category, 0) for split in SPLITS) for category in categories}
    ordered = sorted(categories, key=lambda category: totals[category])
    left = np.zeros(len(ordered))
    for split, colour in zip(SPLITS, (BLUE, GREEN, ORANGE), strict=True):
        widths = np.array([counts[split].get(category, 0) for category in ordered])
        bars = axes.barh(ordered, widths, left=left, color=colour, label=f"{split} ({widths.sum():,})")
        axes.bar_label(bars, [str(n) if n else "" for n in widths], label_type="center", color="white", fontsize=8)
        left += widths
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("images")
    axes.legend(loc="lower right")
    save(figure, path)


def draw_confusion_matrix(scores: Scores, title: str, path: Path) -> None:
    """Draw true categories against answers, as shares of each true category; the last column is no answer."""
    counts = np.array(scores.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    low, high = scores.accuracy_low, scores.accuracy_high
    figure, axes = _new(
        f"{title}: {scores.accuracy:.1%} right ({low:.1%} to {high:.1%}, n = {scores.n})", width=8.2, height=7
    )
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    names = [one.category for one in scores.categories]
    columns = (*names, UNKNOWN)
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), [f"{name} ({n})" for name, n in zip(names, counts.sum(axis=1), strict=True)])
    axes.set(xlabel="answer", ylabel="true category (images)")
    axes.grid(visible=False)
    axes.axvline(len(names) - 0.5, color=GREY, linewidth=1)
    _write_cells(axes, counts, shares)
    save(figure, path)


def _write_cells(axes: Any, counts: npt.NDArray[Any], shares: npt.NDArray[Any]) -> None:
    for row, column in np.argwhere(counts):
        colour = "white" if shares[row, column] > 0.55 else "#111827"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8)


def draw_training_curves(history: Sequence[HistoryRow], best_epoch: int, folder: Path) -> None:
    """Draw learning rate, loss and scores per epoch into folder/{lr,val_*}.png, the chosen epoch marked."""
    epochs = [row.epoch for row in history]
    _draw_curve(
        "lr",
        "Learning rate at the end of each epoch",
        epochs,
        [row.learning_rate for row in history],
        best_epoch,
        folder,
    )
    figure, axes = _new("Loss on the true answer")
    axes.plot(epochs, [row.val_loss for row in history], "o-", color=BLUE, label="validation, whole split")
    trained = [(row.epoch, row.train_loss) for row in history if row.train_loss is not None]
    axes.plot(
        [e for e, _ in trained], [loss for _, loss in trained], "s--", color=GREY, label="training, while learning"
    )
    _finish_curve(axes, "nats per token, mean over images", best_epoch)
    save(figure, folder / "val_loss.png")
    for name, title in _CURVES.items():
        values = [getattr(row, name) for row in history]
        _draw_curve(name, title, epochs, values, best_epoch, folder, is_share=True)


_CURVES: Final = {
    "val_accuracy": "Validation accuracy",
    "val_precision": "Validation precision, weighted by category size",
    "val_recall": "Validation recall, weighted by category size (equals accuracy)",
    "val_f1": "Validation F1, weighted by category size",
}


def draw_confidence(confidence: Mapping[str, Any], path: Path) -> None:
    """Draw the reliability diagram and the risk-coverage curve."""
    with plt.rc_context(_STYLE):  # type: ignore[arg-type]
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    bins, points = confidence["reliability"], confidence["risk_coverage"]
    left.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect calibration")
    left.plot([one["confidence"] for one in bins], [one["accuracy"] for one in bins], "o-", color=BLUE, label="test")
    left.set_title(f"Reliability: calibration error {confidence['ece']:.1%}", loc="left", fontweight="bold")
    left.set(xlabel="confidence, equally many images a point", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    left.legend(loc="upper left")
    # "pre": the risk of a point holds for the coverage that leads up to it, as in its area.
    right.step([one["coverage"] for one in points], [one["risk"] for one in points], where="pre", color=BLUE)
    for one, marker in zip(
        [one for one in confidence["wanted"] if one["test_risk"] is not None], "os^vD", strict=False
    ):
        right.plot(
            one["test_coverage"],
            one["test_risk"],
            marker,
            color=ORANGE,
            markersize=8,
            label=f"threshold {one['threshold']:.2f}, chosen on val for at most {one['wanted_risk']:.0%} wrong",
        )
    if right.get_legend_handles_labels()[0]:
        right.legend(loc="upper left", fontsize=8)
    right.set_title("Risk and coverage of abstention", loc="left", fontweight="bold")
    right.set(xlabel="share answered", ylabel="share of those wrong", xlim=(0, 1), ylim=(0, 1))
    for axes in (left, right):
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    save(figure, path)


def draw_recipe_comparison(table: Sequence[Mapping[str, Any]], n_test: int, path: Path) -> None:
    """Draw each recipe's mean accuracy on val and test with its spread over seeds."""
    figure, axes = _new("Recipes on the same split: mean and spread over seeds", height=1.6 + 0.5 * len(table))
    places = np.arange(len(table))[::-1]
    for split, colour, offset in (("val", BLUE, 0.12), ("test", ORANGE, -0.12)):
        axes.errorbar(
            [row[f"{split}_mean"] for row in table], places + offset, xerr=[row[f"{split}_spread"] for row in table],
            fmt="o", color=colour, capsize=3, label=f"{split}, n = {n_test}" if split == "test" else "val (chooses)",
        )  # fmt: skip
    axes.set_yticks(places, [row["recipe"] for row in table])
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("accuracy")
    axes.legend(loc="best")
    save(figure, path)


def _draw_curve(
    name: str, title: str, epochs: Sequence[int], values: Sequence[float], best_epoch: int, folder: Path,
    *, is_share: bool = False,
) -> None:  # fmt: skip
    figure, axes = _new(title)
    axes.plot(epochs, values, "o-", color=BLUE)
    if is_share:
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _finish_curve(axes, "", best_epoch)
    save(figure, folder / f"{name}.png")


def _finish_curve(axes: Any, label: str, best_epoch: int) -> None:
    axes.axvline(best_epoch, color=ORANGE, linewidth=1.2, linestyle="--", label=f"chosen epoch ({best_epoch})")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch (0 = before training)", ylabel=label)
    axes.legend(loc="best")

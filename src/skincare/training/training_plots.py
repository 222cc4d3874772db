"""The plots of training: learning rate, loss and metrics per epoch, and the comparison of recipes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

from skincare import plot_style
from skincare.plot_style import BLUE, GREY, ORANGE
from skincare.tables import HistoryRow, ProductHistoryRow

_CURVES: Final = {
    "val_accuracy": "Validation accuracy",
    "val_precision": "Validation precision, weighted by category size",
    "val_recall": "Validation recall, weighted by category size (equals accuracy)",
    "val_f1": "Validation F1, weighted by category size",
}

_PRODUCT_CURVES: Final = {
    "val_document_anls": "Validation ANLS* of whole answers, which selects the epoch",
    **{name: f"{title}: the category alone" for name, title in _CURVES.items()},
}


def draw_training_curves(history: Sequence[HistoryRow], best_epoch: int, folder: Path) -> None:
    """Draw learning rate, loss and metrics per epoch into folder/{lr,val_*}.png; a line marks the selected epoch."""
    epochs = [row.epoch for row in history]
    _draw_curve(
        "lr",
        "Learning rate at the end of each epoch",
        epochs,
        [row.learning_rate for row in history],
        best_epoch,
        folder,
    )
    figure, axes = plot_style.new_figure("Loss on the true answer")
    axes.plot(epochs, [row.val_loss for row in history], "o-", color=BLUE, label="validation, whole split")
    trained = [(row.epoch, row.train_loss) for row in history if row.train_loss is not None]
    axes.plot(
        [e for e, _ in trained], [loss for _, loss in trained], "s--", color=GREY, label="training, during the epoch"
    )
    _finish_curve(axes, "nats per token, mean over images", best_epoch)
    plot_style.save(figure, folder / "val_loss.png")
    curves = _CURVES if not isinstance(history[0], ProductHistoryRow) else _PRODUCT_CURVES
    for name, title in curves.items():
        values = [getattr(row, name) for row in history]
        _draw_curve(name, title, epochs, values, best_epoch, folder, is_share=True)


def draw_recipe_comparison(table: Sequence[Mapping[str, Any]], n_test: int, path: Path) -> None:
    """Draw each recipe's mean accuracy on val and test with its spread over seeds."""
    title = "Recipes on the same split: mean and spread over seeds"
    figure, axes = plot_style.new_figure(title, height=1.6 + 0.5 * len(table))
    places = np.arange(len(table))[::-1]
    for split, colour, offset in (("val", BLUE, 0.12), ("test", ORANGE, -0.12)):
        axes.errorbar(
            [row[f"{split}_mean"] for row in table], places + offset, xerr=[row[f"{split}_spread"] for row in table],
            fmt="o", color=colour, capsize=3, label=f"{split}, n = {n_test}" if split == "test" else "val (selects)",
        )  # fmt: skip
    axes.set_yticks(places, [row["recipe"] for row in table])
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("accuracy")
    axes.legend(loc="best")
    plot_style.save(figure, path)


def _draw_curve(
    name: str, title: str, epochs: Sequence[int], values: Sequence[float], best_epoch: int, folder: Path,
    *, is_share: bool = False,
) -> None:  # fmt: skip
    figure, axes = plot_style.new_figure(title)
    axes.plot(epochs, values, "o-", color=BLUE)
    if is_share:
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _finish_curve(axes, "", best_epoch)
    plot_style.save(figure, folder / f"{name}.png")


def _finish_curve(axes: Any, label: str, best_epoch: int) -> None:
    axes.axvline(best_epoch, color=ORANGE, linewidth=1.2, linestyle="--", label=f"selected epoch ({best_epoch})")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch (0 = before training)", ylabel=label)
    axes.legend(loc="best")

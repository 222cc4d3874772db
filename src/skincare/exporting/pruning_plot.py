"""The plot of a pruning experiment: influence of each layer, and accuracy against the number of dropped layers."""

from pathlib import Path

from matplotlib.ticker import MaxNLocator, PercentFormatter

from skincare import plot_style
from skincare.exporting.pruning_experiment import PruningExperiment


def draw_pruning(experiment: PruningExperiment, n_val: int, path: Path) -> None:
    """Draw both panels and write the PNG."""
    figure, (left, right) = plot_style.new_panels(2, width=10, height=4)
    positions = range(len(experiment.influences))
    colours = [plot_style.ORANGE if i in experiment.order else plot_style.BLUE for i in positions]
    left.bar(positions, experiment.influences, color=colours)
    left.set_title("Block influence of the language layers", loc="left", fontweight="bold")
    left.set(xlabel="layer (orange: dropped, least influence first)", ylabel="1 - cosine similarity")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    rows, full = experiment.rows, experiment.rows[0].accuracy
    right.errorbar(
        [row.n_dropped for row in rows], [row.accuracy for row in rows], color=plot_style.BLUE, fmt="o-", capsize=3,
        # The interval of the difference from the full model, drawn at the accuracy.
        yerr=[[row.difference - row.difference_low for row in rows],
              [row.difference_high - row.difference for row in rows]],
    )  # fmt: skip
    right.axhline(full, color=plot_style.GREY, linewidth=1, linestyle="--")
    right.set_title("Accuracy without healing", loc="left", fontweight="bold")
    right.set(
        xlabel="dropped layers (bars: 95 % interval of the change)", ylabel=f"accuracy on val, n = {n_val}", ylim=(0, 1)
    )
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    plot_style.save(figure, path)

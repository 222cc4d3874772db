"""The common style of all plots: colours, axes, and PNG files with equal bytes for equal data.

The colours are those of Okabe and Ito, which colour-blind readers can distinguish.
"""

import io
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

from skincare.files import write_bytes

# Before pyplot is imported, which otherwise searches for a display.
mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

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


def new_figure(title: str, width: float = 7.2, height: float = 4.2) -> tuple[Figure, Any]:
    """Return a figure with one pair of axes under a title; sizes in inches."""
    figure, axes = new_panels(1, width, height)
    axes.set_title(title, loc="left", fontweight="bold")
    return figure, axes


def new_panels(n: int, width: float, height: float) -> tuple[Figure, Any]:
    """Return a figure with `n` axes next to each other; sizes in inches."""
    with plt.rc_context(_STYLE):  # type: ignore[arg-type]
        return plt.subplots(1, n, figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG without a time stamp, and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    plt.close(figure)
    write_bytes(path, buffer.getvalue())

"""The reliability diagram of the fields of structured answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from matplotlib.ticker import PercentFormatter

from skincare import plot_style
from skincare.evaluation.field_calibration import FieldCalibration
from skincare.plot_style import GREY

_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#6B7280")
_MARKERS: Final = "osD^vPX*"


def draw_field_calibration(systems: Mapping[str, Sequence[FieldCalibration]], path: Path) -> bool:
    """Draw a panel per system with a curve per field; return False, and draw nothing, if no field has enough values."""
    drawn = {name: shown for name, found in systems.items() if (shown := [one for one in found if one.bins])}
    if not drawn:
        path.unlink(missing_ok=True)
        return False
    fields = list(dict.fromkeys(one.field for found in drawn.values() for one in found))
    figure, panels = plot_style.new_panels(len(drawn), width=4.2 * len(drawn) + 1.4, height=4.2)
    for axes, (name, found) in zip(panels if len(drawn) > 1 else [panels], drawn.items(), strict=True):
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
        for one in found:
            place = fields.index(one.field)
            axes.plot(
                [part.confidence for part in one.bins or ()], [part.accuracy for part in one.bins or ()],
                f"{_MARKERS[place % len(_MARKERS)]}-", color=_COLOURS[place % len(_COLOURS)], label=one.field,
            )  # fmt: skip
        axes.set_title(name, loc="left", fontweight="bold")
        axes.set(xlabel="confidence of the value", ylabel="share of correct values", xlim=(0, 1), ylim=(0, 1))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.legend(loc="upper left", fontsize=8)
    plot_style.save(figure, path)
    return True

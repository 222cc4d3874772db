"""Runs of the training without its plots, which take longer than the small runs of the tests."""

from skincare.evaluation import confidence_plot, confusion_plot
from skincare.training import training_plots


def replace_training_plots(patch, draw=lambda *_: None):
    """Replace the plots of a training run by `draw`; patch: a pytest.MonkeyPatch."""
    patch.setattr(training_plots, "draw_training_curves", draw)
    patch.setattr(confusion_plot, "draw_confusion_matrix", draw)
    patch.setattr(confidence_plot, "draw_confidence", draw)

"""The recorded experiment of layer pruning: a model and val in, a row for each number of dropped layers out."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tqdm import tqdm

from skincare.dataset.chat import Example
from skincare.evaluation import comparison
from skincare.exporting import evaluation
from skincare.exporting.layer_pruning import block_influences, drop_layers, least_influential, n_fixed_layers
from skincare.inference.classifier import Classifier
from skincare.modeling.freezing import count


@dataclass(frozen=True)
class PruningRow:
    """A model without its `n_dropped` layers of least influence, on val, against the model with all layers.

    dropped: positions in the full model, in ascending order. difference: of accuracy, with its 95 % interval over
    products.
    """

    n_dropped: int
    dropped: tuple[int, ...]
    n_parameters: int
    weight_bytes: int
    images_per_second: float
    accuracy: float
    difference: float
    difference_low: float
    difference_high: float


@dataclass(frozen=True)
class PruningExperiment:
    """The block influence of each language layer, and the rows from no dropped layer to `len(order)` of them."""

    influences: tuple[float, ...]
    order: tuple[int, ...]
    rows: tuple[PruningRow, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as what JSON holds."""
        return asdict(self)


def prune_stepwise(
    classifier: Classifier, examples: Sequence[Example], n_layers: int, batch_size: int
) -> PruningExperiment:
    """Drop up to `n_layers` language layers, the least influential first, and evaluate each step; changes the model.

    The order is that of the full model. Nothing is trained in between.
    """
    # Without a source no prediction is cached: the weights change with every step.
    current = Classifier(classifier.network, classifier.encoder, classifier.features.files, batch_size=batch_size)
    model, decoder = current.network.model, current.decoder(evaluation.default_decoder(current))
    influences = block_influences(current, examples, batch_size)
    order = least_influential(influences, n_layers, n_fixed_layers(model.config))
    kept, rows, full = list(range(len(influences))), [], None
    for n_dropped in tqdm(range(n_layers + 1), "dropped layers", unit="model", disable=None):
        if n_dropped:
            layer = order[n_dropped - 1]
            drop_layers(model, [kept.index(layer)])
            kept.remove(layer)
        predicted = current.predict(examples, "val", decoder, show_progress=False)
        full = full or predicted
        found = comparison.compare(full, predicted)
        rows.append(
            PruningRow(
                n_dropped=n_dropped,
                dropped=tuple(sorted(order[:n_dropped])),
                n_parameters=count(model.parameters()),
                weight_bytes=evaluation.weight_bytes(model),
                images_per_second=evaluation.images_per_second(current, examples, batch_size),
                accuracy=found.accuracy_after,
                difference=found.difference,
                difference_low=found.difference_low,
                difference_high=found.difference_high,
            )
        )
    return PruningExperiment(tuple(influences), tuple(order), tuple(rows))

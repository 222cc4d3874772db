"""Loss and gradients of a step are those of the mean over its images, for any micro-batch size and number of processes.

Comparing weights after a step would prove nothing: AdamW and clipping hide a constant factor of the gradient.
"""

import pytest
import torch

import finetune
from skincare.paths import TINY_MODEL, Layout
from skincare.tables import HISTORY
from skincare.training import run_spec, sampling, training_run
from skincare.training.distributed import World
from skincare.training.loop import Trainer
from skincare.training.recipes import RECIPES
from tests.dataset_helpers import write_dataset_files
from tests.plots import replace_training_plots

SIZES = {"train": 18, "val": 2, "test": 2}


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    found = Layout(tmp_path_factory.mktemp("accumulation"))
    write_dataset_files(found, SIZES)
    return found


def config(layout, micro_batch_size, recipe="sample", **changes):
    return finetune.Config(root=layout.root, model=str(TINY_MODEL), recipe=recipe, min_tokens=36, max_tokens=36,
                           micro_batch_size=micro_batch_size, **changes)  # fmt: skip


def make_training(layout, micro_batch_size, recipe="sample", world=World()) -> Trainer:  # noqa: B008  frozen
    settings = config(layout, micro_batch_size, recipe)
    spec = run_spec.make_spec(settings, recipe, 0, run_spec.read_data(settings, layout))
    return training_run.prepare(spec, layout, "gradients", world)


def gradients(training) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in training.parameters.items()}


def of_the_mean(training, examples) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of a single pass over all images, with explicit weights."""
    classifier, recipe = training.classifier, training.recipe
    classifier.network.zero_grad(set_to_none=True)
    grids, features = classifier.features.get([one.image for one in examples])
    categories = [one.category for one in examples]
    losses = classifier.losses(recipe.head, grids, features, categories)
    losses = sampling.focal_losses(losses) if recipe.imbalance == "focal" else losses
    weights = sampling.category_weights(training.categories) if recipe.imbalance == "class_balanced" else {}
    loss = (losses * torch.tensor([weights.get(one, 1.0) for one in categories])).mean()
    loss.backward()
    found = gradients(training)
    classifier.network.zero_grad(set_to_none=True)
    return loss.item(), found


def assert_gradients_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5 * gradient.abs().max().item(), msg=name)


@pytest.mark.parametrize("recipe", ["sample", "sample-weighted", "sample-focal", "sample-head"])
def test_loss_and_gradients_do_not_depend_on_the_micro_batch_size(layout, recipe):
    training = make_training(layout, 8, recipe)
    # The last step of an epoch has fewer images than a batch: 5 make passes of 2, 2 and 1.
    for n_images in (8, 5):
        examples = training.train[:n_images]
        loss, expected = of_the_mean(training, examples)
        for size in (1, 2, 8):
            training.progress.micro_batch_size = size
            assert training._compute_gradients(examples).loss_parts.sum().item() == pytest.approx(loss, rel=1e-5)
            assert_gradients_equal(gradients(training), expected)


def test_history_has_equal_losses_and_gradient_norms_before_clipping(layout, monkeypatch):
    replace_training_plots(monkeypatch)
    rows = []
    for size in (8, 2, 1):
        finetune.run(config(layout, size, run=f"by{size}", max_epochs=1), layout)
        rows.append(HISTORY.read(layout.finetune_log(f"by{size}") / "history.csv")[1])
    assert rows[0].grad_norm > 2 * RECIPES["sample"].max_grad_norm, "clipping would hide the scale"
    for row in rows[1:]:
        assert row.train_loss == pytest.approx(rows[0].train_loss, rel=1e-3)
        assert row.grad_norm == pytest.approx(rows[0].grad_norm, rel=1e-2)


@pytest.mark.parametrize("n_images", [8, 5])
def test_gradients_of_two_ranks_add_up_to_those_of_one_process(layout, n_images):
    """The ranks are computed one after the other; 5 images are split into 3 and 2."""
    training = make_training(layout, 2)
    examples = training.train[:n_images]
    loss, expected = of_the_mean(training, examples)
    losses, parts = [], []
    for rank in range(2):
        training.world = World(rank, 2)
        losses.append(training._compute_gradients(examples).loss_parts.sum().item())
        parts.append(gradients(training))
    assert sum(losses) == pytest.approx(loss, rel=1e-5)
    assert_gradients_equal({name: parts[0][name] + parts[1][name] for name in parts[0]}, expected)

"""Wherever memory runs out: half as many at a time, nothing lost, and the same results; else a word on what to change.

torch's own exception is raised by hand, in the middle of the work.
"""

import dataclasses
import shutil

import pytest
import torch
from lion_pytorch import Lion
from safetensors.torch import load_file

import finetune
from skincare.errors import StageError
from skincare.inference import decoders
from skincare.inference.classifier import Classifier
from skincare.modeling import out_of_memory
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.out_of_memory import Passes, halving
from skincare.paths import TINY_MODEL, Layout
from skincare.tables import HISTORY
from skincare.training import preflight
from skincare.training.loop import Trainer
from tests.dataset_helpers import write_dataset_files
from tests.plots import replace_training_plots

SIZES = {"train": 10, "val": 4, "test": 4}
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


def refusing(function, largest, size_of, error=ERRORS[0]):
    """Return the function, out of memory after its work where what it is given is larger."""

    def run(*arguments, **named):
        found = function(*arguments, **named)
        if size_of(*arguments, **named) > largest:
            raise error
        return found

    return run


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_the_size_is_halved_until_it_fits(error):
    tried = []

    def work(size):
        tried.append(size)
        if size > 2:
            raise error
        return "done"

    assert halving(work, 9, "testing", "advice") == ("done", 2)
    assert tried == [9, 5, 3, 2]


def test_an_error_with_a_remedy_is_raised_if_one_does_not_fit():
    with pytest.raises(StageError, match=r"Out of memory in testing with a single image at a time: buy more"):
        halving(refusing(int, 0, int), 4, "testing", "buy more")


def test_other_errors_are_not_retried():
    with pytest.raises(RuntimeError, match="shapes"):
        halving(refusing(int, 0, int, RuntimeError("shapes differ")), 4, "testing", "advice")
    with pytest.raises(RuntimeError, match="shapes"), out_of_memory.explained("testing", "advice"):
        raise RuntimeError("shapes differ")


def test_results_of_earlier_passes_are_kept_and_later_passes_stay_small(caplog):
    done = []

    def work(some):
        if len(some) > 3 and len(done) > 0:
            raise torch.OutOfMemoryError
        done.append(list(some))
        return some

    passes = Passes(4, "testing", "advice")
    found = [item for part in passes.over(range(10), work) for item in part]
    assert found == list(range(10))
    assert done == [[0, 1, 2, 3], [4, 5], [6, 7], [8, 9]]
    assert caplog.text.count("going on with 2 image(s) at a time") == 1


def test_a_short_last_pass_does_not_shorten_all_passes():
    passes = Passes(4, "testing", "advice")
    assert [len(part) for part in passes.over(range(5), list)] == [4, 1]
    assert passes.size == 4


@pytest.fixture
def ready(tiny_model, tiny_encoder, tmp_path):
    """Classifiers of the tiny model with passes of 2 and of 7 images, nothing computed yet, and seven examples."""
    layout = Layout(tmp_path)
    examples = write_dataset_files(layout, {"val": 7})["val"]
    network = CachedVLM(tiny_model.requires_grad_(False), n_uncached_blocks=1)
    return *(Classifier(network, tiny_encoder, layout.root, batch_size=n) for n in (2, 7)), examples


def predicted(classifier, examples):
    found = classifier.predict(examples, "val", classifier.decoder("rank"), show_progress=False)
    return [dataclasses.replace(one, latency_s=0.0) for one in found]


def test_predictions_are_those_of_smaller_batches(ready, monkeypatch):
    small, large, examples = ready
    expected = predicted(small, examples)
    called = []
    original = decoders.RankingDecoder.__call__
    monkeypatch.setattr(decoders.RankingDecoder, "__call__", refusing(original, 2, lambda _, grids, *__: (
        called.append(len(grids)) or len(grids))))  # fmt: skip
    assert predicted(large, examples) == expected
    assert called == [7, 4, 2, 2, 2, 1]


def test_the_loss_is_that_of_smaller_batches(ready, monkeypatch):
    small, large, examples = ready
    expected = small.total_loss("none", examples)
    monkeypatch.setattr(Classifier, "losses", refusing(Classifier.losses, 2, lambda *all: len(all[-1])))
    assert large.total_loss("none", examples) == expected


def test_the_frozen_blocks_are_passed_in_smaller_batches(ready, monkeypatch):
    classifier, other, examples = ready
    names = [one.image for one in examples]
    called = []
    original = CachedVLM.vision_features
    monkeypatch.setattr(CachedVLM, "vision_features", refusing(original, 3, lambda _, some: (
        called.append(len(some)) or len(some))))  # fmt: skip
    classifier.features.fill(names, batch_size=7)
    assert called == [7, 4, 2, 2, 2, 1]
    monkeypatch.setattr(CachedVLM, "vision_features", original)
    for found, expected in zip(classifier.features.get(names)[1], other.features.get(names)[1], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    """A dataset; each run below it has its own name."""
    found = Layout(tmp_path_factory.mktemp("root"))
    write_dataset_files(found, SIZES)
    with pytest.MonkeyPatch.context() as patched:
        replace_training_plots(patched)
        yield found


@pytest.fixture
def new_layout(tmp_path, layout):
    """The same dataset without a run and without cached vision features."""
    return Layout(shutil.copytree(layout.root / "clean_dataset", tmp_path / "clean_dataset").parent)


@pytest.fixture(scope="module")
def two(layout):
    """Name of a run with passes of two images."""
    finetune.run(config(layout, run="two", micro_batch_size=2), layout)
    return "two"


def config(layout, **changes):
    settings = {"model": str(TINY_MODEL), "recipe": "sample", "min_tokens": 36, "max_tokens": 36, "max_epochs": 1,
                "micro_batch_size": 8}  # fmt: skip
    return finetune.Config(root=layout.root, **{**settings, **changes})


def result(layout, run):
    rows = HISTORY.read(layout.finetune_log(run) / "history.csv")
    metrics = (layout.finetune_log(run) / "test_metrics.json").read_text()
    return (
        [dataclasses.replace(row, seconds=0.0) for row in rows],
        load_file(layout.finetuned_model(run) / "model.safetensors"),
        metrics,
    )


def assert_same_result(layout, one, other):
    (rows, weights, metrics), (other_rows, other_weights, other_metrics) = (result(layout, run) for run in (one, other))
    assert (rows, metrics) == (other_rows, other_metrics)
    for name, tensor in weights.items():
        assert torch.equal(tensor, other_weights[name]), name


def test_training_halves_the_pass_and_keeps_the_batch(layout, two, monkeypatch, caplog):
    with monkeypatch.context() as patched, caplog.at_level("WARNING"):
        # After the backward pass: what it has left in the gradients must not count twice.
        patched.setattr(
            Trainer, "_accumulate_gradients", refusing(Trainer._accumulate_gradients, 2, lambda *all: all[-1])
        )
        finetune.run(config(layout, run="halved"), layout)
    assert "out of memory in training: going on with 2 image(s) at a time" in caplog.text
    assert "the batch of an optimizer step remains 8 image(s)" in caplog.text
    assert_same_result(layout, "halved", two)


def test_the_preflight_halves_the_pass_and_training_starts_with_it(layout, two, monkeypatch, caplog):
    with monkeypatch.context() as patched, caplog.at_level("WARNING"):
        patched.setattr(preflight, "check", refusing(preflight.check, 2, lambda *all: len(all[2])))
        finetune.run(config(layout, run="planned"), layout)
    assert "out of memory in the pre-flight: going on with 2 image(s)" in caplog.text
    assert_same_result(layout, "planned", two)


@pytest.mark.parametrize(
    "recipe", ["sample", *(pytest.param(f"sample-{kind}", marks=pytest.mark.slow) for kind in ("lion", "adafactor"))]
)
def test_a_partial_first_optimizer_step_is_undone_and_taken_in_parts(layout, monkeypatch, caplog, recipe):
    """Memory runs out three times, after weights and optimizer states have changed; the run ends with equal results."""
    whole, torn = f"{recipe}-whole", f"{recipe}-torn"
    finetune.run(config(layout, run=whole, recipe=recipe), layout)
    kind = {"sample": torch.optim.AdamW, "sample-adafactor": torch.optim.Adafactor}.get(recipe)
    kind = kind or Lion
    refuse = refusing(kind.step, 5, lambda optimizer: sum(len(group["params"]) for group in optimizer.param_groups))
    with monkeypatch.context() as patched, caplog.at_level("WARNING"):
        patched.setattr(preflight, "check", lambda *_: None)
        patched.setattr(kind, "step", refuse)
        finetune.run(config(layout, run=torn, recipe=recipe), layout)
    assert "out of memory in the optimizer's step: going on with 4 tensor(s)" in caplog.text
    assert_same_result(layout, whole, torn)


@pytest.mark.parametrize(
    ("place", "name", "says"),
    [
        (Trainer, "_accumulate_gradients", "training with a single image.*--gradient-checkpointing True"),
        (preflight, "check", "pre-flight with a single image.*--max-tokens"),
        (torch.optim.AdamW, "step", "pre-flight with a single image"),
        (CachedVLM, "vision_features", "frozen vision blocks with a single image.*--max-tokens"),
        (decoders.GreedyDecoder, "__call__", "inference with a single image.*--max-tokens"),
    ],
)
def test_a_single_image_that_does_not_fit_is_an_error_with_a_remedy(new_layout, monkeypatch, place, name, says):
    monkeypatch.setattr(place, name, refusing(lambda *_, **__: None, 0, lambda *_, **__: 1))
    with pytest.raises(StageError, match=f"(?s){says}"):
        finetune.run(config(new_layout), new_layout)


def test_optimizer_states_that_do_not_fit_are_an_error_with_other_recipes(new_layout, monkeypatch):
    monkeypatch.setattr(preflight, "check", lambda *_: None)
    monkeypatch.setattr(torch.optim.AdamW, "step", refusing(torch.optim.AdamW.step, 0, lambda *_: 1))
    with pytest.raises(StageError, match=r"optimizer's step with a single tensor.*-adamw8bit.*-lora"):
        finetune.run(config(new_layout), new_layout)


def test_a_partial_later_step_is_an_error_that_names_resume(new_layout, monkeypatch):
    """Between two checkpoints there is no state from which to undo the step."""
    original, n_steps = torch.optim.AdamW.step, []

    def step(optimizer):
        n_steps.append(1)
        if len(n_steps) == 2:
            raise torch.OutOfMemoryError
        return original(optimizer)

    monkeypatch.setattr(preflight, "check", lambda *_: None)
    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(StageError, match="step 1: continue with --resume"):
        finetune.run(config(new_layout), new_layout)
    monkeypatch.undo()
    finetune.run(config(new_layout, resume=True), new_layout)
    assert new_layout.finetuned_model("sample").is_dir()

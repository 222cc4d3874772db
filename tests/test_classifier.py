"""An interrupted evaluation resumes with equal results; the prediction cache is keyed by model, image and settings."""

import dataclasses
import json
import signal
import subprocess
import sys
import time

import pytest
import torch

import zero_shot
from skincare.inference import predictions
from skincare.inference.classifier import Classifier
from skincare.inference.decoder_output import DecoderOutput
from skincare.inference.decoders import RankingDecoder
from skincare.inference.prediction_cache import CachedOutput
from skincare.labels import skincare_labels
from skincare.modeling.heads import ClassificationHead
from skincare.modeling.settings import PixelLimits
from skincare.paths import REPOSITORY, TINY_MODEL, Layout
from tests.dataset_helpers import write_dataset_files

LIMITS = PixelLimits(36, 36)


@pytest.fixture
def layout(tmp_path):
    found = Layout(tmp_path / "root")
    write_dataset_files(found, {"test": 7})
    return found


def config(layout, **changes):
    return zero_shot.Config(root=layout.root, model=str(TINY_MODEL), min_tokens=36, max_tokens=36, **changes)


def loaded(layout, limits):
    return Classifier.load(
        TINY_MODEL, skincare_labels(), layout.root, limits=limits, prediction_cache=layout.answer_cache
    )


def stored_predictions(layout):
    """Return the stored predictions without their latency."""
    found = predictions.read_jsonl(layout.zero_shot / "predictions.jsonl", skincare_labels())
    return [dataclasses.replace(one, latency_s=0.0) for one in found]


def fail_if_called(*_):
    pytest.fail("the decoder ran although every prediction is cached")


def test_an_interrupted_evaluation_resumes_with_equal_predictions(layout, monkeypatch):
    uncached = config(layout, decoder="rank", batch_size=2, cache_predictions=False)
    zero_shot.run(uncached, layout)
    expected = stored_predictions(layout)
    original, n_batches = RankingDecoder.__call__, 0

    def call(self, *inputs):
        nonlocal n_batches
        n_batches += 1
        if n_batches == 3:
            raise KeyboardInterrupt
        return original(self, *inputs)

    monkeypatch.setattr(RankingDecoder, "__call__", call)
    cached = dataclasses.replace(uncached, cache_predictions=True)
    with pytest.raises(KeyboardInterrupt):
        zero_shot.run(cached, layout)
    zero_shot.run(cached, layout)
    assert n_batches == 3 + 2  # two batches and an interrupted one, then the other two
    assert stored_predictions(layout) == expected
    monkeypatch.setattr(RankingDecoder, "__call__", fail_if_called)
    zero_shot.run(cached, layout)
    assert stored_predictions(layout) == expected


@pytest.mark.slow
def test_a_killed_process_resumes_from_its_prediction_cache(layout):
    command = [sys.executable, str(REPOSITORY / "src" / "zero_shot.py"), "--root", str(layout.root), "--model",
               str(TINY_MODEL), "--min-tokens", "36", "--max-tokens", "36", "--batch-size", "1"]  # fmt: skip
    zero_shot.run(config(layout, batch_size=1, cache_predictions=False), layout)
    expected = stored_predictions(layout)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(layout.answer_cache.glob("*.jsonl")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (cache,) = layout.answer_cache.glob("*.jsonl")
    with cache.open("ab") as file:
        file.write(b'{"key": "torn')
    partial = cache.read_bytes()
    subprocess.run(command, check=True, capture_output=True)
    assert cache.read_bytes().startswith(partial)  # no prediction is computed or written twice
    assert stored_predictions(layout) == expected


@pytest.mark.parametrize("change", ["image", "decoder", "limits", "weights", "head"])
def test_a_cached_prediction_is_used_only_for_equal_inputs(layout, change):
    model = loaded(layout, LIMITS)
    examples = write_dataset_files(layout, {"test": 1})["test"]
    (first,) = model.predict(examples, "test", model.decoder("rank"))
    limits, decoder = LIMITS, "rank"
    if change == "image":
        write_dataset_files(layout, {"test": 1}, first=5)
        examples = [dataclasses.replace(examples[0], image=path) for path in
                    [layout.relative(sorted(layout.clean_images.iterdir())[-1])]]  # fmt: skip
    elif change == "decoder":
        decoder = "constrained"
    elif change == "limits":
        limits = PixelLimits(25, 25)
    other = loaded(layout, limits)
    if change == "weights":
        with torch.no_grad():
            other.network.model.lm_head.weight[0] += 1
    elif change == "head":
        other.network.head = ClassificationHead(other.network.model.config.text_config.hidden_size, 14)
    (second,) = other.predict(examples, "test", other.decoder(decoder))
    assert second.cache_key != first.cache_key
    (again,) = loaded(layout, LIMITS).predict(
        write_dataset_files(layout, {"test": 1})["test"], "test", model.decoder("rank")
    )
    assert again == first


def test_batches_hold_prompts_of_similar_length_and_predictions_are_sorted_by_image(layout, monkeypatch):
    model = loaded(layout, LIMITS)
    model._passes.size = 2
    examples = [
        dataclasses.replace(one, hint="Text on the pack: " + n * "noor " if n else "")
        for n, one in zip((3, 0, 9, 3, 9, 0, 5), write_dataset_files(layout, {"test": 7})["test"], strict=True)
    ]
    hints, output = [], CachedOutput(DecoderOutput("Oil", 1, is_finished=True), 0.0)
    monkeypatch.setattr(
        model,
        "_batch_outputs",
        lambda batch, *_: hints.append([x.hint.count("noor") for x in batch]) or [output] * len(batch),
    )
    found = model.predict(examples, "test", model.decoder("generate"))
    assert hints == [[9, 9], [5, 3], [3, 0], [0]]
    assert [one.image_id for one in found] == sorted(one.image_id for one in examples)
    assert all(one.hint == next(x.hint for x in examples if x.image_id == one.image_id) for one in found)


def test_the_manifest_records_settings_and_data(layout):
    zero_shot.run(config(layout), layout)
    found = json.loads((layout.zero_shot / "manifest.json").read_text())
    assert found["evaluation"]["min_pixels"] == found["evaluation"]["max_pixels"] == 36 * 28 * 28
    assert found["evaluation"]["processor"] == "Qwen2VLImageProcessor"
    assert found["predictions"]["predictions.jsonl"]["n"] == 7
    assert found["model"]["source"] == "models/tiny-qwen2-vl"
    assert all(found[key] for key in ("command", "config", "versions", "prompt", "parser_version", "decoder_version"))
    before = found["predictions"]["predictions.jsonl"]["data_fingerprint"]
    write_dataset_files(layout, {"test": 7}, first=1)
    zero_shot.run(config(layout), layout)
    after = json.loads((layout.zero_shot / "manifest.json").read_text())
    assert after["predictions"]["predictions.jsonl"]["data_fingerprint"] != before
    assert after["evaluation"] == found["evaluation"]


def test_every_field_of_the_identity_changes_the_key(layout):
    """A field that is left out of the key would let the predictions of another model pass for this one's."""
    model = loaded(layout, LIMITS)
    fields = {
        "weight_hash", "head_hash", "labels", "dtype", "device", "prompt_hash", "template_hash", "processor",
        "processor_hash", "min_pixels", "max_pixels", "torch", "transformers",
    }  # fmt: skip
    assert model.identity.keys() == fields
    example = write_dataset_files(layout, {"test": 1})["test"][0]
    keys = {model._key(model._cache_of(model.decoder(name)), example) for name in ("rank", "generate")}
    identity = model.identity
    for field in fields:
        model.identity = {**identity, field: "changed"}
        keys.add(model._key(model._cache_of(model.decoder("rank")), example))
    assert len(keys) == 2 + len(fields)

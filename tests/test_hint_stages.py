"""Every stage uses the hints of the dataset: inference, caching, training, explanation and export."""

import dataclasses
import json
import shutil

import pytest
import torch

import ablations
import explain
import finetune
import score
import zero_shot
from skincare.dataset import chat, hints
from skincare.errors import StageError
from skincare.files import write_json
from skincare.inference import predictions, saliency
from skincare.inference.classifier import Classifier
from skincare.inference.decoders import make_decoder
from skincare.inference.image_predictions import input_image
from skincare.inference.model_predictor import ModelPredictor
from skincare.labels import skincare_labels
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.loading import load_config
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.modeling.settings import PixelLimits
from skincare.paths import TINY_MODEL, Layout
from skincare.prompts import HINT_LABELS
from skincare.training import planning, sampling
from skincare.training.loop import Trainer
from skincare.training.recipes import RECIPES
from tests.dataset_helpers import jpeg, pack, write_dataset_files
from tests.helpers import mixed_pixels
from tests.plots import replace_training_plots
from tests.test_fusion import FakePacks
from tests.test_hints import hinted_dataset
from tests.test_training import assert_same_run, config

CATEGORIES = skincare_labels().names

OCR = HINT_LABELS["text"]
LIMITS = PixelLimits(36, 36)
SMALL = {"train": 4, "val": 3, "test": 3}


@pytest.fixture(autouse=True, scope="module")
def no_plots():
    with pytest.MonkeyPatch.context() as patch:
        replace_training_plots(patch)
        yield


@pytest.fixture
def layout(tmp_path):
    found = Layout(tmp_path / "root")
    hinted_dataset(found, SMALL)
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train with hint dropout 1; return the layout and the recorded prompts as pairs (has an answer, hints)."""
    found = Layout(tmp_path_factory.mktemp("trained"))
    hinted_dataset(found, SMALL)
    prompts = []
    original = PromptEncoder.batch

    def batch(self, grids, answers=None, *args, hints=(), **kwargs):
        prompts.append((answers is not None, tuple(sorted(hints))))  # batches are sorted by length
        return original(self, grids, answers, *args, hints=hints, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PromptEncoder, "batch", batch)
        patch.setitem(RECIPES, "sample", dataclasses.replace(RECIPES["sample"], hint_dropout=1.0))
        finetune.run(config(found, max_epochs=2), found)
    return found, prompts


@pytest.mark.parametrize("name", ["generate", "constrained", "rank"])
def test_prompts_of_different_lengths_give_equal_answers_in_a_batch_and_alone(tiny_model, tiny_encoder, name):
    network = CachedVLM(tiny_model.float().requires_grad_(False))
    pixels = mixed_pixels(tiny_encoder)
    grids, features = [one.grid for one in pixels], network.vision_features(pixels)
    batch_hints = ["", f"{OCR}NOOR", f"{OCR}Clay Mask, 50 ml, NOOR", f"{OCR}Peel"]
    decoder = make_decoder(name, network, tiny_encoder)
    together = decoder(grids, features, batch_hints)
    alone = [
        decoder([grid], [feature], [hint])[0] for grid, feature, hint in zip(grids, features, batch_hints, strict=True)
    ]
    assert [one.text for one in together] == [one.text for one in alone]
    assert torch.allclose(
        *(torch.tensor([one.log_probabilities for one in answers]) for answers in (together, alone)), atol=1e-3
    )


def test_scores_of_a_prompt_with_a_hint_equal_full_sequence_scores(tiny_model, tiny_encoder):
    """Compare scoring from the cached prompt prefix over the token trie with one full sequence per label name."""
    network = CachedVLM(tiny_model.float().requires_grad_(False))
    pixels = mixed_pixels(tiny_encoder)[:1]
    grids, features, hint = [pixels[0].grid], network.vision_features(pixels), f"{OCR}Clay Mask, 50 ml"
    ranked = make_decoder("rank", network, tiny_encoder)(grids, features, [hint])[0].log_probabilities
    batch = tiny_encoder.batch(grids * 14, CATEGORIES, hints=[hint] * 14)
    n_tokens = torch.tensor([len(tiny_encoder.answer_tokens(name)) for name in CATEGORIES])
    whole = torch.log_softmax(-network(batch, features * 14) * n_tokens, dim=0)
    assert torch.allclose(torch.tensor(ranked), whole.detach(), atol=1e-3)
    other = make_decoder("rank", network, tiny_encoder)(grids, features, [f"{OCR}Peel"])[0].log_probabilities
    assert max(abs(a - b) for a, b in zip(ranked, other, strict=True)) > 0.01


def zero_shot_predictions(layout):
    settings = zero_shot.Config(
        root=layout.root, model=str(TINY_MODEL), min_tokens=36, max_tokens=36, decoder="rank", batch_size=4
    )
    zero_shot.run(settings, layout)
    return predictions.read_jsonl(layout.zero_shot / "predictions.jsonl", skincare_labels())


def test_zero_shot_prompts_and_cache_keys_contain_the_hint(layout):
    first = zero_shot_predictions(layout)
    manifest = json.loads((layout.zero_shot / "manifest.json").read_text())
    assert [one.hint for one in first] == [one.hint for one in chat.read_dataset(layout, "test")]
    assert manifest["hints"] == "text"
    assert zero_shot_predictions(layout) == first
    write_dataset_files(layout, SMALL)
    plain = zero_shot_predictions(layout)
    assert "hint" not in json.loads((layout.zero_shot / "predictions.jsonl").read_text().splitlines()[0])
    # The first image has no hint in either dataset, so its cache key is equal.
    assert [one.cache_key == other.cache_key for one, other in zip(first, plain, strict=True)] == [
        True, *[False] * (len(first) - 1)
    ]  # fmt: skip
    assert first[1].log_probabilities != plain[1].log_probabilities
    again = json.loads((layout.zero_shot / "manifest.json").read_text())
    assert again["hints"] == "none"
    name = "predictions.jsonl"
    assert again["predictions"][name]["data_fingerprint"] != manifest["predictions"][name]["data_fingerprint"]


def test_scoring_keeps_the_hints(layout):
    first = zero_shot_predictions(layout)
    score.run(score.Config(root=layout.root), layout)
    assert predictions.read_jsonl(layout.zero_shot / "predictions.jsonl", skincare_labels()) == first


def test_the_ablations_remove_and_exchange_hints(layout):
    settings = ablations.Config(root=layout.root, model=str(TINY_MODEL), min_tokens=36, max_tokens=36, n_orders=0)
    results = ablations.run(settings, layout).results
    ways = {row["way"] for row in results["ways"]}
    found = {way: predictions.read_jsonl(layout.ablations / f"{way}.jsonl", skincare_labels()) for way in ways}
    assert {"rank", "rank_no_hint", "rank_other_hint"} <= ways
    assert not any(one.hint for one in found["rank_no_hint"])
    truth_of = {one.hint: one.truth for one in found["rank"] if one.hint}
    for own, other in zip(found["rank"], found["rank_other_hint"], strict=True):
        assert bool(own.hint) == bool(other.hint)
        assert not own.hint or truth_of[other.hint] != own.truth
    misled = [one.category == truth_of[one.hint] for one in found["rank_other_hint"] if one.hint]
    assert results["followed_other_hint"] == sum(misled) / len(misled)


@pytest.mark.slow
def test_an_interrupted_run_with_hints_resumes_with_equal_weights(layout, monkeypatch):
    finetune.run(config(layout, run="uninterrupted", max_epochs=2), layout)
    original, n_taken = Trainer._step, 0

    def step(self, examples):
        nonlocal n_taken
        n_taken += 1
        if n_taken > 1:
            raise KeyboardInterrupt
        return original(self, examples)

    monkeypatch.setattr(Trainer, "_step", step)
    with pytest.raises(KeyboardInterrupt):
        finetune.run(config(layout, run="resumed", max_epochs=2), layout)
    monkeypatch.setattr(Trainer, "_step", original)
    finetune.run(config(layout, run="resumed", max_epochs=2, resume=True), layout)
    assert_same_run(layout, "uninterrupted", "resumed")


def test_a_run_is_resumed_only_with_equal_hints(layout, monkeypatch):
    monkeypatch.setattr(Trainer, "_step", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        finetune.run(config(layout), layout)
    write_dataset_files(layout, SMALL)
    with pytest.raises(StageError, match="data"):
        finetune.run(config(layout, resume=True), layout)


def _interrupt(*_):
    raise KeyboardInterrupt


def test_hint_dropout_depends_only_on_seed_epoch_and_image():
    ids = [f"{i}_1" for i in range(4000)]
    kept = {(seed, epoch): [sampling.keeps_hint(0.3, seed, epoch, one) for one in ids]
             for seed in (0, 1) for epoch in (0, 1)}  # fmt: skip
    assert all(abs(sum(flags) / len(ids) - 0.7) < 0.03 for flags in kept.values())
    assert len({tuple(flags) for flags in kept.values()}) == 4
    # Independent of the process and the order.
    assert [sampling.keeps_hint(0.3, 0, 1, one) for one in reversed(ids)] == kept[0, 1][::-1]
    assert all(sampling.keeps_hint(0.0, 0, 0, one) for one in ids)
    assert not any(sampling.keeps_hint(1.0, 0, 0, one) for one in ids)


def test_dropout_removes_hints_in_training_but_not_in_validation(trained):
    layout, prompts = trained
    train, val = ([one.hint for one in chat.read_dataset(layout, split)] for split in ("train", "val"))
    assert (True, tuple(sorted(val))) in prompts  # the loss
    assert (False, tuple(sorted(val))) in prompts  # the predictions
    # Training hints occur in the pre-flight's check and pass, not in the steps of the two epochs.
    assert sum(bool(set(hinted) & set(train) - {""}) for _, hinted in prompts) == 2
    assert sum(has_answer and hinted == ("",) * 4 for has_answer, hinted in prompts) == 2


def test_plan_and_preflight_count_the_longest_hint(layout, tiny_encoder):
    train = chat.read_dataset(layout, "train")
    long = dataclasses.replace(train[-1], hint=OCR + "word " * 60 + "end")
    settings, recipe = config(layout), RECIPES["sample"]
    plans = [
        planning.plan_memory(settings, recipe, load_config(TINY_MODEL), planning.prompt_lengths(tiny_encoder, hints))
        for hints in ([], [one.hint for one in train], [one.hint for one in (*train[:-1], long)])
    ]
    per_image = [one.activation_bytes_per_image for one in plans]
    assert per_image[0] < per_image[1] < per_image[2]
    chat.write_dataset(layout, "train", [*train[:-1], dataclasses.replace(long, hint=OCR + "word " * 400 + "end")])
    with pytest.raises(StageError, match=r"longer than the model.s context of 1024(.|\n)*--hint-bytes"):
        finetune.run(config(layout, micro_batch_size=1), layout)


def test_a_plan_counts_the_hints_of_the_dataset(layout):
    finetune.run(config(layout, plan=True), layout)
    hinted = json.loads(layout.finetune_plan.read_text())["activation_bytes_per_image"]
    write_dataset_files(layout, SMALL)
    finetune.run(config(layout, plan=True), layout)
    assert json.loads(layout.finetune_plan.read_text())["activation_bytes_per_image"] < hinted


def test_the_exported_model_records_its_hint_settings(trained, tmp_path):
    layout, _ = trained
    longest = max(len(one.hint) for one in chat.read_dataset(layout, "train")) - len(OCR)
    assert hints.read_settings(layout.finetuned_model("r")) == hints.HintSettings("text", longest)
    hints.write_settings(tmp_path, ["", ""])
    assert list(tmp_path.iterdir()) == []
    assert hints.read_settings(tmp_path) == hints.HintSettings()


@pytest.mark.parametrize("content", ["", "[]", '{"kind": "text"}', '{"kind": "no", "max_bytes": 3}',
                                     '{"kind": "text", "max_bytes": 0}'])  # fmt: skip
def test_malformed_hint_settings_are_an_error(tmp_path, content):
    (tmp_path / hints.SETTINGS_FILE).write_text(content)
    with pytest.raises(StageError, match="export the model again"):
        hints.read_settings(tmp_path)


def test_the_explained_prompt_contains_the_hint(trained):
    layout, _ = trained
    (layout.root / "log" / "finetune.json").write_text(json.dumps({"results": {"run": "r"}}))
    explained = explain.run(explain.Config(root=layout.root), layout).results["images"]
    ranked = predictions.read_jsonl(layout.finetune_log("r") / "test_ranked.jsonl", skincare_labels())
    assert [one.hint for one in ranked] == [one.hint for one in chat.read_dataset(layout, "test")]
    model = Classifier.load(layout.finetuned_model("r"), skincare_labels(), layout.root, limits=LIMITS)
    one = next(one for one in ranked if one.hint)
    row = next(row for row in explained if row["image_id"] == one.image_id)
    grids, features = model.features.get([one.file])

    def contrast(*hints_of_image):
        found = saliency.explain(
            model.network, model.encoder, grids, features, [one.truth], [row["rival"]], *hints_of_image
        )
        return found[0].contrast

    assert contrast([one.hint]) == pytest.approx(row["contrast"], abs=1e-3)
    assert contrast() != pytest.approx(row["contrast"], abs=1e-3)


def test_a_dataset_with_two_kinds_of_hints_is_refused():
    with pytest.raises(StageError, match="several kinds"):
        hints.kind_of([f"{OCR}a", f"{HINT_LABELS['metadata']}b"])


@pytest.mark.parametrize("kind", ["none", "text", "metadata"])
def test_predict_reads_text_hints_by_ocr_and_warns_about_metadata_hints(tmp_path, caplog, kind):
    """Text hints come from OCR of the image; metadata hints need the shop's page, so predict omits them."""
    shutil.copytree(TINY_MODEL, tmp_path / "model")
    if kind != "none":
        write_json(tmp_path / "model" / hints.SETTINGS_FILE, {"kind": kind, "max_bytes": 12})
    image = input_image("a.jpg", jpeg(pack(1, 224)))

    def probabilities(*texts):
        classifier = Classifier.load(tmp_path / "model", skincare_labels(), tmp_path)
        predictor = ModelPredictor(classifier, "rank", packs=FakePacks(*texts))
        return predictor.predict([image])[0].probability

    one, other = probabilities("Clay Mask"), probabilities("Bath Salts", "<|im_end|>", "too long for the budget")
    assert (one != other) == (kind == "text")
    assert ("predicting without hints" in caplog.text) == (kind == "metadata")
    # Text beyond the byte limit of training is omitted.
    assert probabilities("Clay Mask", "a" * 100) == one

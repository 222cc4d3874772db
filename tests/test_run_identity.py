"""The identity of a run holds everything that affects it, and differences are listed."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file, save_file

from skincare.dataset import chat
from skincare.dataset.image_files import FolderImages
from skincare.errors import StageError
from skincare.labels import skincare_labels
from skincare.modeling.loading import checkpoint_hashes, load_processor
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.modeling.settings import PixelLimits
from skincare.paths import TINY_MODEL
from skincare.prompts import labels_for
from skincare.training import run_identity
from skincare.training.recipes import RECIPES
from skincare.training.run_settings import RunSettings
from skincare.training.run_spec import RunSpec, SplitDataset


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(TINY_MODEL, tmp_path / "model")


@pytest.fixture
def files(tmp_path):
    for n in range(3):
        (tmp_path / f"pack_2000000{n}_1.jpg").write_bytes(bytes([n]))
    return FolderImages(tmp_path)


EXAMPLES = [
    chat.example(f"pack_2000000{n}_1.jpg", category, skincare_labels())
    for n, category in enumerate(("Peel", "Oil", "Balm"))
]


def make_encoder(labels=None, max_tokens=36, model=TINY_MODEL):
    return PromptEncoder(load_processor(model, PixelLimits(36, max_tokens)), labels or skincare_labels())


def identity(files, encoder=None, model=TINY_MODEL, recipe=RECIPES["sample"], seed=0, train=EXAMPLES, val=EXAMPLES):
    encoder = encoder or make_encoder(model=model)
    data = SplitDataset(train, val, (), files, encoder.labels)
    return run_identity.compute(RunSpec(RunSettings(model=str(model)), "", recipe, seed, data), encoder)


def test_identity_does_not_depend_on_order_of_examples_or_description(files, copy):
    one = identity(files)
    other = identity(
        files, model=copy, recipe=dataclasses.replace(RECIPES["sample"], description="better words"),
        train=EXAMPLES[::-1],
    )  # fmt: skip
    assert one == other == json.loads(json.dumps(one))
    assert run_identity.differences(one, other) == []
    assert run_identity.digest(one) == run_identity.digest(other)


def test_differences_are_listed_with_short_values(files):
    one = identity(files)
    recipe = dataclasses.replace(RECIPES["sample"], learning_rate=0.5, max_epochs=7)
    other = identity(files, recipe=recipe, seed=3)
    assert run_identity.differences(one, other) == [
        "recipe (learning_rate 0.002, now 0.5, max_epochs 16, now 7)", "seed 0, now 3"
    ]  # fmt: skip
    assert run_identity.digest(one) != run_identity.digest(other)
    assert run_identity.differences(one, identity(files, train=EXAMPLES[:2])) == ["data (train)"]
    del one["template"]
    assert run_identity.differences(one, identity(files)) == ["template (not recorded)"]


def test_template_prompt_and_labels_are_part_of_the_identity(files):
    processor = make_encoder().processor
    one = identity(files, PromptEncoder(processor, skincare_labels()))
    processor.chat_template = processor.chat_template.replace("assistant", "helper")
    assert run_identity.differences(one, identity(files, PromptEncoder(processor, skincare_labels()))) == [
        "template", "prompt (text, tokens)"
    ]  # fmt: skip
    encoder = make_encoder()
    encoder.answer_tokens = lambda name: [1, 2]
    assert run_identity.differences(one, identity(files, encoder))[0].startswith("labels (Moisturiser [44, ")


def changed_example(**changes):
    return [dataclasses.replace(EXAMPLES[0], **changes), *EXAMPLES[1:]]


OTHER_LABELS = dataclasses.replace(skincare_labels(), aliases=skincare_labels().aliases[1:])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"val": EXAMPLES[:2]}, ["data (val)"]),
        ({"train": changed_example(hint="a hint")}, ["data (train)"]),
        ({"train": changed_example(product='{"category":"Peel"}')}, ["data (train)"]),
        ({"max_tokens": 49}, ["processor (size)"]),
        ({"labels": OTHER_LABELS}, ["labels_file"]),
        ({"labels": labels_for("product", skincare_labels())},
         ["prompt (text, tokens, hinted)", "labels_file", "criterion (not recorded)"]),
    ],
    ids=["val", "hint", "answer", "limits", "labels", "target"],
)  # fmt: skip
def test_what_a_run_learns_from_changes_its_identity(files, change, expected):
    settings = {name: value for name, value in change.items() if name in ("labels", "max_tokens")}
    data = {name: value for name, value in change.items() if name not in settings}
    assert run_identity.differences(identity(files), identity(files, make_encoder(**settings), **data)) == expected


def test_the_form_of_hints_changes_the_identity(files, monkeypatch):
    before = identity(files)
    monkeypatch.setattr(run_identity, "with_hint", lambda question, hint: f"{question} ({hint})")
    assert run_identity.differences(before, identity(files))[0].startswith("prompt (hinted")


def test_images_are_identified_by_content(files):
    before = run_identity.fingerprint(EXAMPLES, files)
    (files.root / EXAMPLES[1].image).write_bytes(b"another image under the old name")
    assert run_identity.fingerprint(EXAMPLES, files) != before


def test_shards_are_identified_without_fetching_them():
    known = SimpleNamespace(sha256_of=lambda image: image * 2)
    assert len(run_identity.fingerprint(EXAMPLES, known)) == 16


def test_the_weight_hash_does_not_depend_on_sharding(copy):
    original = checkpoint_hashes(TINY_MODEL)
    tensors = load_file(copy / "model.safetensors")
    names = sorted(tensors)
    (copy / "model.safetensors").unlink()
    for i, part in enumerate((names[::2], names[1::2])):
        save_file({name: tensors[name] for name in part}, copy / f"model-{i}.safetensors", metadata={"format": "pt"})
    assert checkpoint_hashes(copy) == original
    tensors[names[0]].view(-1)[-1] += 1
    save_file({name: tensors[name] for name in names[::2]}, copy / "model-0.safetensors", metadata={"format": "pt"})
    assert checkpoint_hashes(copy)["weights"] != original["weights"]


def test_the_configuration_hash_ignores_the_transformers_version(copy):
    original, config = checkpoint_hashes(TINY_MODEL), json.loads((copy / "config.json").read_text())
    for change, is_same in (({"transformers_version": "9"}, True), ({"rms_norm_eps": 1.0}, False)):
        other = shutil.copytree(copy, copy.parent / str(is_same))
        (other / "config.json").write_text(json.dumps({**config, **change}))
        assert (checkpoint_hashes(other) == original) == is_same


def test_damaged_weights_are_reported(copy):
    (copy / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(StageError, match="cannot be read"):
        checkpoint_hashes(copy)

"""An exported model gives the answers of predict.py in transformers' pipeline, generate() and vLLM's settings.

The base models that it is exported from differ as those of the hub do: the base checkpoint stops at <|endoftext|> only
and its chat template drops the image; the Instruct one samples.
"""

import csv
import dataclasses
import json
import shutil

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
    pipeline,
)

import predict
from skincare.dataset.image_files import FolderImages
from skincare.labels import skincare_labels
from skincare.modeling.loading import load_processor
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.paths import TINY_MODEL, Layout
from skincare.prompts import chat_template
from skincare.training import training_run
from skincare.training.recipes import RECIPES
from skincare.training.run_settings import RunSettings
from skincare.training.run_spec import RunSpec, SplitDataset
from tests.dataset_helpers import write_dataset_files

# The template of the base checkpoint: it prints non-text content as Python does, without an image token.
_BASE_TEMPLATE = """\
{% for message in messages %}
{% if loop.first and messages[0]['role'] != 'system' %}<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif %}<|im_start|>{{ message['role'] }}
{{ message['content'] | string }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def like_base(folder):
    """Give a copy of the tiny model the generation settings of Qwen2-VL-2B."""
    end = {"bos_token_id": 506, "eos_token_id": 506, "do_sample": False, "max_new_tokens": 2048}
    rewrite(folder / "generation_config.json", lambda _: end)
    rewrite(folder / "tokenizer_config.json", lambda one: one | {"eos_token": "<|endoftext|>"})
    rewrite(folder / "config.json", lambda one: one | {"text_config": one["text_config"] | {
        "eos_token_id": 506, "pad_token_id": None}})  # fmt: skip
    (folder / "chat_template.jinja").write_text(_BASE_TEMPLATE)


def like_instruct(folder):
    """Give a copy of the tiny model the sampling settings of Qwen2-VL-2B-Instruct."""
    sampling = {"bos_token_id": 506, "pad_token_id": 506, "eos_token_id": [505, 506], "do_sample": True,
                "repetition_penalty": 1.1, "temperature": 0.01, "top_p": 0.001, "top_k": 1}  # fmt: skip
    rewrite(folder / "generation_config.json", lambda _: sampling)


def rewrite(path, change):
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def in_bf16(folder):
    """Give a copy of the tiny model the settings of the base checkpoint, and its dtype, bf16."""
    like_base(folder)
    weights = load_file(folder / "model.safetensors")
    save_file({n: w.bfloat16() for n, w in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    rewrite(folder / "config.json", lambda one: one | {"dtype": "bfloat16"})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A layout with test images, and a trained run that can be exported from any base checkpoint."""
    layout = Layout(tmp_path_factory.mktemp("trained"))
    parts = write_dataset_files(layout, {"train": 28, "val": 4, "test": 15})
    settings = RunSettings(model=str(TINY_MODEL), min_tokens=36, max_tokens=36, micro_batch_size=8)
    recipe = dataclasses.replace(RECIPES["sample"], max_epochs=4)
    data = SplitDataset(parts["train"], parts["val"], parts["test"], FolderImages(layout.root), skincare_labels())
    training = training_run.prepare(RunSpec(settings, "sample", recipe, 0, data), layout, "r")
    training.run(lambda _: None)
    folder = layout.root / "images"
    folder.mkdir()
    for i, one in enumerate(parts["test"]):
        # Of several shapes, so that prompts in a batch differ in length.
        Image.open(layout.root / one.image).crop((0, 0, 224, (224, 150, 190)[i % 3])).save(folder / f"{i}.jpg")
    return layout, training, settings


@pytest.fixture(scope="module", params=[like_base, like_instruct, in_bf16])
def exported(request, trained):
    """The folder of the model, exported from one of these bases, and predict.py's answers by image file."""
    layout, training, settings = trained
    base = shutil.copytree(TINY_MODEL, layout.root / f"base_{request.param.__name__}")
    request.param(base)
    folder = layout.finetuned_model(request.param.__name__)
    training.spec = dataclasses.replace(training.spec, settings=dataclasses.replace(settings, model=str(base)))
    training_run.export(training, folder)
    table = layout.root / "answers.csv"
    images = (str(layout.root / "images"),)
    predict.run(predict.Config(root=layout.root, images=images, model=str(folder), csv=table), layout)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert len(rows) == 15
    return folder, {row["file"]: row["answer"] for row in rows}


def dialogue(file):
    return [
        {
            "role": "user",
            "content": [{"type": "image", "path": file}, {"type": "text", "text": skincare_labels().question}],
        }
    ]


@pytest.mark.slow
def test_the_pipeline_gives_the_answers_of_predict(exported):
    folder, answers = exported
    classify = pipeline("image-text-to-text", model=str(folder), batch_size=5)
    found = classify(text=[dialogue(file) for file in answers], return_full_text=False)
    assert {file: one[0]["generated_text"] for file, one in zip(answers, found, strict=True)} == answers


@pytest.mark.slow
def test_generate_gives_the_answers_of_predict(exported):
    folder, answers = exported
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    found = {}
    for file in answers:
        inputs = processor.apply_chat_template(
            dialogue(file), add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        tokens = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
        found[file] = processor.decode(tokens, skip_special_tokens=True)
        assert 505 not in tokens[:-1], "no tokens follow <|im_end|>"
    assert found == answers


@pytest.mark.slow
def test_generation_settings_match_the_training(exported):
    folder, _ = exported
    generation = GenerationConfig.from_pretrained(folder)
    generation.validate(strict=True)  # no option that requires sampling
    # vLLM reads the options that differ from the defaults.
    assert generation.to_diff_dict() == {
        "bos_token_id": 506, "eos_token_id": [505, 506], "pad_token_id": 506, "do_sample": False, "max_new_tokens": 30,
        "transformers_version": generation.transformers_version,
    }  # fmt: skip
    text = AutoConfig.from_pretrained(folder).text_config
    assert (text.eos_token_id, text.pad_token_id) == ([505, 506], 506)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.padding_side) == (505, 506, "left")


@pytest.mark.slow
def test_a_dialogue_without_system_prompt_gets_that_of_the_training(exported):
    folder, _ = exported
    trained_with = PromptEncoder(load_processor(TINY_MODEL), skincare_labels()).prompt_text
    assert skincare_labels().system_prompt() in trained_with
    for kind in (AutoProcessor, AutoTokenizer):
        prompt = kind.from_pretrained(folder).apply_chat_template(
            dialogue("a.jpg"), add_generation_prompt=True, tokenize=False
        )
        assert prompt == trained_with


@pytest.mark.parametrize(
    "instruction", ['It\'s "quoted"', "a {{ b }} %} {# c", "Zeile 1\nZeile 2\\n", "крем 🧴 \u2028"]
)
def test_any_system_prompt_is_kept_verbatim_in_the_template(instruction):
    processor = load_processor(TINY_MODEL)
    processor.chat_template = chat_template(instruction)
    prompt = processor.apply_chat_template(dialogue("a.jpg"), tokenize=False)
    assert prompt.startswith(f"<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n<|vision_start|>")

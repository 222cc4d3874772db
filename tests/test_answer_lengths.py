"""No structured answer is cut off: what is too long is an error before training that names its images."""

import dataclasses
import json

import pytest

import finetune
from skincare.dataset import chat
from skincare.errors import StageError
from skincare.modeling.loading import load_config
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.paths import TINY_MODEL, Layout
from skincare.product.schema import Product
from skincare.training import answer_lengths, planning
from skincare.training.recipes import RECIPES
from tests.structured_examples import LABELS, write_structured_dataset
from tests.test_training import config

SIZES = {"train": 4, "val": 2, "test": 2}


@pytest.fixture
def layout(tmp_path):
    found = Layout(tmp_path)
    write_structured_dataset(found, SIZES)
    return found


@pytest.fixture(scope="module")
def encoder(tiny_encoder):
    return PromptEncoder(tiny_encoder.processor, LABELS)


def with_details(one, n_words):
    details = "rich " * n_words + "cream"
    return dataclasses.replace(one, product=Product(category=one.category, details=details).to_json())


def test_an_answer_that_would_be_cut_off_stops_training_and_is_named(layout):
    train = chat.read_dataset(layout, "train")
    chat.write_dataset(layout, "train", [*train[:-1], with_details(train[-1], 300)])
    with pytest.raises(StageError, match=rf"of 1 of 8 images are too long(.|\n)*{train[-1].image_id} \(\d+ tok"):
        finetune.run(config(layout), layout)


def test_the_limit_is_that_of_generation_and_of_the_models_context(layout, encoder, monkeypatch):
    one = chat.read_dataset(layout, "train")[0]
    n_answer = len(encoder.answer_tokens(one.product))
    n_prompt = encoder.batch([(1, 2, 72)]).input_ids.shape[1]
    answer_lengths.check_fit(encoder, [one], 36, n_prompt + n_answer)
    with pytest.raises(StageError, match=one.image_id):
        answer_lengths.check_fit(encoder, [one], 36, n_prompt + n_answer - 1)
    monkeypatch.setattr(answer_lengths, "max_new_tokens", lambda _: n_answer)
    answer_lengths.check_fit(encoder, [one], 36, 10**6)
    monkeypatch.setattr(answer_lengths, "max_new_tokens", lambda _: n_answer - 1)
    with pytest.raises(StageError, match=f"more than {n_answer - 1} tokens"):
        answer_lengths.check_fit(encoder, [one], 36, 10**6)


def test_the_longest_answers_come_first(layout, encoder):
    train = chat.read_dataset(layout, "train")
    long = with_details(train[2], 30)
    assert answer_lengths.longest_first(encoder, [*train[:2], long, train[3]])[0] == long
    assert answer_lengths.longest(encoder, [one.product for one in (*train, long)]) == long.product


def test_the_plan_knows_the_longest_answer(layout, encoder):
    train = chat.read_dataset(layout, "train")
    answers = [[], [one.product for one in train], [with_details(train[0], 60).product]]
    lengths = [planning.prompt_lengths(encoder, [], one) for one in answers]
    assert [one.n_answer for one in lengths] == sorted(one.n_answer for one in lengths)
    assert lengths[2].n_suffix - lengths[1].n_suffix == lengths[2].n_answer - lengths[1].n_answer > 0
    recipe, model_config = RECIPES["sample"], load_config(TINY_MODEL)
    plans = [planning.plan_memory(config(layout), recipe, model_config, one) for one in lengths]
    per_image = [one.activation_bytes_per_image for one in plans]
    assert per_image[0] < per_image[1] < per_image[2]
    without_logits = dataclasses.replace(lengths[2], n_answer=0)
    other = planning.plan_memory(config(layout), recipe, model_config, without_logits)
    logits = 12 * lengths[2].n_answer * model_config.text_config.vocab_size
    assert per_image[2] - other.activation_bytes_per_image == logits


def test_the_plan_of_the_command_counts_the_answers_of_the_dataset(layout):
    finetune.run(config(layout, plan=True), layout)
    short = json.loads(layout.finetune_plan.read_text())["activation_bytes_per_image"]
    train = chat.read_dataset(layout, "train")
    chat.write_dataset(layout, "train", [*train[:-1], with_details(train[-1], 60)])
    finetune.run(config(layout, plan=True), layout)
    assert json.loads(layout.finetune_plan.read_text())["activation_bytes_per_image"] > short


def test_a_recipe_with_a_head_cannot_learn_structured_answers(layout):
    with pytest.raises(StageError, match="not structured answers"):
        finetune.run(config(layout, recipe="sample-head"), layout)

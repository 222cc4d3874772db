import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from skincare.errors import StageError
from skincare.labels import skincare_labels
from skincare.modeling.prompt_encoder import IGNORED, PromptEncoder, multimodal_positions
from skincare.prompts import user_messages
from tests.helpers import mixed_pixels, noise_image

QUESTION = skincare_labels().question


@pytest.fixture
def reference(tiny_encoder, tiny_model):
    """The processor's own batch of four prompts, padded on either side, with the model's own positions."""

    def build(padding_side):
        processor = tiny_encoder.processor
        old_size, old_side = processor.image_processor.size, processor.tokenizer.padding_side
        processor.image_processor.size = {"shortest_edge": 20 * 784, "longest_edge": 60 * 784}
        processor.tokenizer.padding_side = padding_side
        shapes = ((168, 168), (200, 120), (168, 168), (100, 230))
        images = [noise_image(*shape, seed=i) for i, shape in enumerate(shapes)]
        text = processor.apply_chat_template(
            user_messages(
                skincare_labels(),
            ),
            add_generation_prompt=True,
            tokenize=False,
        )
        inputs = processor(text=[text] * 4, images=images, return_tensors="pt", padding=True)
        processor.image_processor.size, processor.tokenizer.padding_side = old_size, old_side
        positions, _ = tiny_model.model.get_rope_index(
            inputs["input_ids"],
            inputs["mm_token_type_ids"],
            inputs["image_grid_thw"],
            attention_mask=inputs["attention_mask"],
        )
        return inputs, positions

    return build


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_equals_that_of_the_processor(tiny_encoder, reference, side):
    inputs, positions = reference(side)
    batch = tiny_encoder.batch([one.grid for one in mixed_pixels(tiny_encoder)], padding_side=side)
    assert torch.equal(batch.input_ids, inputs["input_ids"])
    assert torch.equal(batch.attention_mask, inputs["attention_mask"])
    assert torch.equal(batch.position_ids, positions * inputs["attention_mask"])


def test_patches_equal_those_of_the_processor(tiny_encoder, reference):
    inputs, _ = reference("right")
    assert torch.equal(torch.cat([one.patches for one in mixed_pixels(tiny_encoder)]), inputs["pixel_values"])


def test_labels_are_the_tokens_of_the_answer_and_its_end(tiny_encoder):
    answers = ["Peel", "Bath Salts", "Eye Care", "Moisturiser"]
    batch = tiny_encoder.batch([one.grid for one in mixed_pixels(tiny_encoder)], answers)
    for labels, ids, answer in zip(batch.labels, batch.input_ids, answers, strict=True):
        learnt = labels != IGNORED
        assert torch.equal(labels[learnt], ids[learnt])
        assert tiny_encoder.tokenizer.decode(labels[learnt]) == f"{answer}<|im_end|>"


def test_an_answer_is_tokenised_once(tiny_encoder, monkeypatch):
    encoder = PromptEncoder(tiny_encoder.processor, skincare_labels())
    first = encoder.batch([(1, 12, 12)] * 2, ["Peel", "Mask"])
    monkeypatch.setattr(encoder.tokenizer, "encode", lambda *_, **__: pytest.fail("tokenised again"))
    assert torch.equal(encoder.batch([(1, 12, 12)] * 2, ["Peel", "Mask"]).labels, first.labels)


def test_a_prompt_without_an_answer_has_no_labels(tiny_encoder):
    assert (tiny_encoder.batch([(1, 12, 12)]).labels == IGNORED).all()


def test_positions_after_a_wide_image_continue_after_its_columns():
    positions = multimodal_positions(n_before=2, grid=(1, 2, 6), n_after=2, merge_size=2)
    assert positions.tolist() == [[0, 1, 2, 2, 2, 5, 6], [0, 1, 2, 2, 2, 5, 6], [0, 1, 2, 3, 4, 5, 6]]


@pytest.mark.parametrize("template", ["", "{{ messages[0]['role'] }}", "<|image_pad|>no question"])
def test_a_template_that_loses_image_or_question_is_refused(tiny_encoder, template):
    processor = tiny_encoder.processor
    old = processor.chat_template
    processor.chat_template = template
    try:
        with pytest.raises(StageError, match="chat template"):
            PromptEncoder(processor, skincare_labels())
    finally:
        processor.chat_template = old


def test_the_prompt_holds_the_question_once(tiny_encoder):
    assert tiny_encoder.prompt_text.count(QUESTION) == 1
    assert tiny_encoder.prompt_text.endswith("<|im_start|>assistant\n")


def test_threads_share_an_encoder(tiny_encoder):
    """Text of a hint never becomes a special token, while another thread encodes text in which it does."""
    special = "<|im_start|>" * 40
    with_special, without = tiny_encoder._tokens(special), tiny_encoder.question_tokens(special)
    assert len(without) > len(with_special) == 40

    def encode(kind):
        found = [tiny_encoder._tokens(special) if kind else tiny_encoder.question_tokens(special) for _ in range(50)]
        return all(one == (with_special if kind else without) for one in found)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(encode, [True, False] * 2))
    finally:
        sys.setswitchinterval(before)

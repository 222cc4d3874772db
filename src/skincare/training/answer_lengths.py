"""Lengths of answers in tokens: no answer of a dataset may be cut off, in training or in generation."""

from collections.abc import Sequence
from typing import Final

from skincare.dataset.chat import Example
from skincare.errors import StageError
from skincare.inference.decoders import max_new_tokens
from skincare.modeling.prompt_encoder import PromptEncoder

_N_NAMED: Final = 20


def longest(encoder: PromptEncoder, answers: Sequence[str]) -> str:
    """Return the answer with the most tokens."""
    return max(sorted(set(answers)), key=lambda answer: len(encoder.answer_tokens(answer)))


def longest_first(encoder: PromptEncoder, examples: Sequence[Example]) -> list[Example]:
    """Return the examples in the order of decreasing length of hint and structured answer."""
    n_hint = {hint: len(encoder.question_tokens(hint)) for hint in {one.hint for one in examples}}
    n_answer = {text: len(encoder.answer_tokens(text)) for text in {one.product for one in examples}}
    return sorted(examples, key=lambda one: -(n_hint[one.hint] + n_answer[one.product]))


def check_fit(encoder: PromptEncoder, examples: Sequence[Example], n_visual_tokens: int, n_context: int) -> None:
    """Raise StageError that names the images whose structured answer would be cut off.

    n_visual_tokens: at most, of an image; n_context: the model's context length.
    """
    examples = [one for one in examples if one.product]
    limit = max_new_tokens(encoder.labels)
    grid = (1, encoder.merge_size, encoder.merge_size * n_visual_tokens)
    n_answer = {text: len(encoder.answer_tokens(text)) for text in {one.product for one in examples}}
    n_prompt = {hint: encoder.batch([grid], hints=[hint]).input_ids.shape[1] for hint in {one.hint for one in examples}}
    too_long = [one for one in examples if n_answer[one.product] > min(limit, n_context - n_prompt[one.hint])]
    if too_long:
        named = [f"{one.image_id} ({n_answer[one.product]} tokens)" for one in too_long[:_N_NAMED]]
        raise StageError(
            f"The answers of {len(too_long)} of {len(examples)} images are too long, more than {limit} tokens or, with "
            f"the prompt, than the model's context of {n_context}: {', '.join(named)}"
            f"{', ...' if len(too_long) > _N_NAMED else ''}\nBuild the dataset with fewer fields (`python "
            "src/build_dataset.py --target product --fields ...`), or allow fewer visual tokens (--max-tokens)."
        )

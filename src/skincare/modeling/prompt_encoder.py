"""Encoding of images and labels as the model's input tensors.

Prompts differ only in the number of visual tokens and in the hint, so the text around the image is tokenised once:

    <system and user turn> <|image_pad|> * n <question> [hint] <assistant header> [answer <|im_end|>]
"""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, Literal

import torch
from PIL import Image
from torch.nn import functional

from skincare.errors import StageError
from skincare.labels import Labels
from skincare.modeling.staging import to_device
from skincare.prompts import user_messages, with_hint

IGNORED: Final = -100  # target of a token that is not part of the answer

PaddingSide = Literal["left", "right"]

# (frames, rows, columns) of an image, in patches; a still has one frame.
Grid = tuple[int, int, int]

# Tokens, how many of the last are the answer, and their (3, T) positions.
Row = tuple[list[int], int, torch.Tensor]


@dataclass(frozen=True)
class Patches:
    """The input of the vision tower for one image.

    patches: (n_patches, 1176) float32, in merge-block order.
    """

    patches: torch.Tensor
    grid: Grid


@dataclass(frozen=True)
class Batch:
    """B prompts, with or without answers, padded to T tokens.

    input_ids, attention_mask: (B, T) int64; position_ids: (3, B, T) int64 (frame, row, column of multimodal RoPE);
    labels: (B, T) int64, IGNORED outside the answers; image_positions, answer_positions: int64, the places of all
    image tokens and of all answer tokens in the flattened (B * T) tokens, in order; grids: one per image;
    is_left_padded: whether a row has padding before its first token; n_outputs: how many of the last T tokens include
    all that predict an answer's tokens, or the next token; prompt_prefix: tokens before every row that are no part of
    the rows, because their keys and values are cached.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    image_positions: torch.Tensor
    answer_positions: torch.Tensor
    grids: tuple[Grid, ...]
    is_left_padded: bool
    n_outputs: int
    prompt_prefix: tuple[int, ...] = ()

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on `device`, copied in one piece."""
        tensors = {name: one for name, one in vars(self).items() if isinstance(one, torch.Tensor)}
        moved = to_device([one.flatten() for one in tensors.values()], device)
        shaped = {
            name: flat.view(one.shape) for (name, one), flat in zip(tensors.items(), moved, strict=True)
        }  # fmt: skip
        return replace(self, **shaped)  # type: ignore[arg-type]

    @property
    def padding_mask(self) -> torch.Tensor | None:
        """Return the (B, n_prefix + T) attention mask, None where no token sees padding.

        Padding after a row needs none: no token of the row attends to what follows it.
        """
        if not self.is_left_padded:
            return None
        return functional.pad(self.attention_mask, (len(self.prompt_prefix), 0), value=1)


class PromptEncoder:
    """Encodes images and labels with the checkpoint's processor; the prompt lists the labels in `order`.

    Threads may share an encoder. Raises StageError if the chat template gives a prompt without the image or the
    question.
    """

    def __init__(self, processor: Any, labels: Labels, order: Sequence[str] = ()) -> None:
        self.labels = labels
        self.processor = processor
        self.tokenizer = processor.tokenizer
        # Each call sets in the tokenizer whether text may become special tokens: calls of two threads must not overlap.
        self._tokenizer_lock = threading.Lock()
        self.image_token_id: int = processor.image_token_id
        self.merge_size: int = processor.image_processor.merge_size
        self.end_token_id: int = self.tokenizer.convert_tokens_to_ids("<|im_end|>")
        self.pad_token_id: int = self.tokenizer.pad_token_id
        self.prompt_text: str = processor.apply_chat_template(
            user_messages(labels, order=order), add_generation_prompt=True, tokenize=False
        )
        before, token, after = self.prompt_text.partition(processor.image_token)
        if not token or labels.question not in after or processor.image_token in after:
            raise StageError(
                "The chat template does not give a prompt with one image and the question; it gave: "
                f"{self.prompt_text[:200]!r}"
            )
        self.prompt_prefix = tuple(self._tokens(before))
        # The question is between two special tokens, so it can be tokenised separately.
        self._around_question = [self._tokens(text) for text in after.split(labels.question, 1)]
        self._after = self._tokens(after)
        # Answers are labels, the same few in every batch.
        self._name_tokens = lru_cache(maxsize=2 * len(labels))(self._tokens)

    @property
    def token_side_px(self) -> int:
        """Return the width and height in pixels of what one visual token covers."""
        return self.processor.image_processor.patch_size * self.merge_size

    def patches(self, image: Image.Image) -> Patches:
        """Resize and normalise an image and cut it into patches."""
        features = self.processor.image_processor(images=[image], return_tensors="pt")
        rows, columns = features["image_grid_thw"][0, 1:].tolist()
        return Patches(features["pixel_values"], (1, rows, columns))

    def enough_size(self, size: tuple[int, int]) -> tuple[float, float]:
        """Return a width and height close to the model's resolution for which `patches` gives the same grid.

        The processor scales an image down if it has too many pixels after each side is rounded to whole tokens; half a
        token is added so that this is still the case.
        """
        scale = math.sqrt(self.processor.image_processor.size["longest_edge"] / (size[0] * size[1]))
        half = self.token_side_px / 2 + 1
        return scale * size[0] + half, scale * size[1] + half

    def n_tokens_of_size(self, size: tuple[int, int]) -> int:
        """Return the number of image tokens of an image of this width and height; ValueError if it is too narrow."""
        width, height = size
        return self.processor.image_processor.get_number_of_image_patches(height, width) // self.merge_size**2

    def answer_tokens(self, answer: str) -> list[int]:
        """Return the tokens of an answer and the end token that stops generation."""
        return [*self._name_tokens(answer), self.end_token_id]

    def batch(
        self, grids: Sequence[Grid], answers: Sequence[str] | None = None, padding_side: PaddingSide = "right",
        *, hints: Sequence[str] = (), without_prefix: bool = False, length_multiple: int = 1,
    ) -> Batch:  # fmt: skip
        """Return the prompts of images with these grids; with `answers` also the targets of training.

        `hints`: one per image, or none. With `without_prefix` the rows start at the image, and the tokens before it
        are the batch's `prompt_prefix`. T is a multiple of `length_multiple`.
        """
        n_prefix = len(self.prompt_prefix) if without_prefix else 0
        hints = hints or [""] * len(grids)
        if len(hints) != len(grids):
            raise ValueError(f"{len(hints)} hints for {len(grids)} images")
        rows = [self._row(grid, hints[i], answers[i] if answers else None) for i, grid in enumerate(grids)]
        rows = [(ids[n_prefix:], n_answer, positions[:, n_prefix:]) for ids, n_answer, positions in rows]
        return replace(
            self._pad(rows, grids, padding_side, length_multiple), prompt_prefix=self.prompt_prefix[:n_prefix]
        )

    def inference_batch(self, grids: Sequence[Grid], hints: Sequence[str] = ()) -> Batch:
        """Return left-padded prompts without the prefix."""
        return self.batch(grids, padding_side="left", hints=hints, without_prefix=True)

    def _pad(self, rows: Sequence[Row], grids: Sequence[Grid], padding_side: PaddingSide, multiple: int) -> Batch:
        length = -(-max(len(ids) for ids, _, _ in rows) // multiple) * multiple
        shape = (len(rows), length)
        input_ids = torch.full(shape, self.pad_token_id)
        attention_mask = torch.zeros(shape, dtype=torch.int64)
        labels = torch.full(shape, IGNORED)
        position_ids = torch.zeros((3, *shape), dtype=torch.int64)
        n_outputs = 1
        for i, (ids, n_answer, positions) in enumerate(rows):
            place = slice(length - len(ids), length) if padding_side == "left" else slice(0, len(ids))
            input_ids[i, place] = torch.tensor(ids)
            attention_mask[i, place] = 1
            position_ids[:, i, place] = positions
            n_outputs = max(n_outputs, length - place.stop + n_answer + 1)
            if n_answer:
                labels[i, place][-n_answer:] = torch.tensor(ids[-n_answer:])
        return Batch(
            input_ids, attention_mask, position_ids, labels,
            image_positions=(input_ids == self.image_token_id).flatten().nonzero()[:, 0],
            answer_positions=(labels != IGNORED).flatten().nonzero()[:, 0],
            grids=tuple(grids),
            is_left_padded=bool((attention_mask[:, 0] == 0).any()),
            n_outputs=n_outputs,
        )  # fmt: skip

    @property
    def prompt_tokens(self) -> tuple[int, ...]:
        """Return the tokens of the prompt without those of the image."""
        return (*self.prompt_prefix, *self._after)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of generated tokens without special ones."""
        return self.tokenizer.decode(tokens, skip_special_tokens=True)

    def n_visual_tokens(self, grid: Grid) -> int:
        """Return the number of image tokens of a grid."""
        frames, rows, columns = grid
        return frames * rows * columns // self.merge_size**2

    def row_length(self, n_visual_tokens: int, hint: str, answer: str | None = None) -> int:
        """Return the number of tokens of a prompt from its image on, with its answer if one is given."""
        n_answer = len(self.answer_tokens(answer)) if answer is not None else 0
        return n_visual_tokens + len(self._tokens_after_image(hint)) + n_answer

    def question_tokens(self, hint: str) -> list[int]:
        """Return the tokens of question and hint, in which text never becomes a special token."""
        return self._tokens(with_hint(self.labels.question, hint), split_special_tokens=True)

    def _row(self, grid: Grid, hint: str, answer: str | None) -> Row:
        answer_tokens = self.answer_tokens(answer) if answer is not None else []
        tail = [*self._tokens_after_image(hint), *answer_tokens]
        ids = [*self.prompt_prefix, *[self.image_token_id] * self.n_visual_tokens(grid), *tail]
        positions = multimodal_positions(len(self.prompt_prefix), grid, len(tail), self.merge_size)
        return ids, len(answer_tokens), positions

    def _tokens_after_image(self, hint: str) -> list[int]:
        if not hint:
            return self._after
        before, after = self._around_question
        return [*before, *self.question_tokens(hint), *after]

    def _tokens(self, text: str, *, split_special_tokens: bool = False) -> list[int]:
        with self._tokenizer_lock:
            tokens: list[int] = self.tokenizer.encode(
                text, add_special_tokens=False, split_special_tokens=split_special_tokens
            )
        return tokens


def multimodal_positions(n_before: int, grid: Grid, n_after: int, merge_size: int) -> torch.Tensor:
    """Return the (3, T) rotary positions of text, one image, text.

    Text tokens count up in all three rows. An image's tokens have a constant frame and count rows and columns from the
    end of the text; the text after the image continues after the larger of the two.

    Source: Qwen2-VL (arXiv 2409.12191), section 2.1.
    """
    rows, columns = grid[1] // merge_size, grid[2] // merge_size
    before = torch.arange(n_before).expand(3, -1)
    image = torch.stack(
        [
            torch.zeros(rows * columns, dtype=torch.int64),
            torch.arange(rows).repeat_interleave(columns),
            torch.arange(columns).repeat(rows),
        ]
    )
    after = torch.arange(n_after).expand(3, -1) + max(rows, columns)
    return torch.cat([before, image + n_before, after + n_before], dim=1)

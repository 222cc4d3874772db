"""What a decoder returns for one image."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DecoderOutput:
    """A decoded text; log_probabilities are those of all labels, empty for decoders without them.

    field_log_probabilities: (field, mean over the tokens of its value) of a structured answer.
    """

    text: str
    n_new_tokens: int
    is_finished: bool
    log_probabilities: tuple[float, ...] = ()
    field_log_probabilities: tuple[tuple[str, float], ...] = ()

"""The table of checks that an image must pass: metric, threshold, and whether the check rejects by default.

Three kinds, in the order of evaluation: whether the file can be read (always on), whether the image is good, whether
it is a duplicate. The first check that fails is the image's reason. A check that is off only counts what it would
reject.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from skincare.cleaning.inspection import ImageMetrics
from skincare.cleaning.quality import MIN_SHARPNESS
from skincare.errors import StageError

FileReason = Literal[
    "missing_file", "unreadable_file", "bad_path", "empty", "not_an_image", "unsupported_format", "too_many_pixels",
    "truncated", "corrupt", "kills_decoder",
]  # fmt: skip
ImageReason = Literal[
    "too_small", "odd_shape", "blurred", "blurred_frame", "dark", "overexposed", "low_information", "greyscale",
    "animated", "rotated", "transparent", "cmyk", "sixteen_bit", "profile_applied", "profile_ignored",
]  # fmt: skip
DuplicateReason = Literal[
    "shared_image", "category_conflict", "duplicate_bytes", "duplicate_pixels", "near_duplicate", "equal_dhash",
    "equal_reference_hash",
]  # fmt: skip
Reason = Literal[ImageReason, DuplicateReason]
Rules = Literal["content", "reference", "reference_mended"]

# Chosen by hand: a group shot may be on the pages of a few products; a placeholder or a banner is on many.
SHARED_BY: Final = 5

MEANINGS: Final[dict[str, str]] = {
    "missing_file": "listed, but not on disk",
    "unreadable_file": "the file system refused to read it",
    "bad_path": "not named or placed as a product's image",
    "empty": "no bytes",
    "not_an_image": "something else, such as an error page",
    "unsupported_format": "an image format that is not read",
    "too_many_pixels": "more pixels than any product photo has",
    "truncated": "its end is missing",
    "corrupt": "cannot be decoded",
    "kills_decoder": "its decoder crashed, or took longer than a minute",
    "shared_image": "shown by many products, such as a placeholder or a banner",
    "category_conflict": "the same image in two categories: all are rejected",
    "duplicate_bytes": "the same bytes as the representative",
    "duplicate_pixels": "the same pixels as the representative",
    "near_duplicate": "a re-encoded or rescaled duplicate of the representative",
    "equal_dhash": "the same 64-bit difference hash as the representative",
    "equal_reference_hash": "the same hash as the representative, computed as in the reference experiment",
}


@dataclass(frozen=True)
class Check:
    """A metric of an image with its threshold, the minimum or the maximum that passes."""

    reason: ImageReason
    meaning: str
    value: Callable[[ImageMetrics], float]
    threshold: float
    is_least: bool
    is_on: bool = True

    def fails(self, metrics: ImageMetrics) -> bool:
        """Return whether an image fails the check."""
        value = self.value(metrics)
        return value < self.threshold if self.is_least else value > self.threshold


def _noted(reason: ImageReason, meaning: str) -> Check:
    """Return a check, off by default, for a property that the decoder has already corrected."""
    return Check(reason, meaning, lambda one: float(reason in one.notes), 0, is_least=False, is_on=False)


# The model gets 224 to 308 px a side; of a pack that is enlarged from half of that, no words can be read. Of 192 real
# photos, all legible, the smallest product has 159 px, the smallest frame 142 px.
MIN_PRODUCT_SIDE_PX: Final = 128

CHECKS: Final = (
    Check("too_small", "a product of fewer pixels than can be read", lambda one: _product_side_px(one),
          MIN_PRODUCT_SIDE_PX, is_least=True),
    Check("odd_shape", "longer than a pack, such as a banner", lambda one: _elongation(one), 4, is_least=False),
    Check("blurred", "sharpness of the content below the threshold", lambda one: one.sharpness.content, MIN_SHARPNESS,
          is_least=True),
    Check("blurred_frame", "the reference's rule: sharpness of the whole frame below the threshold",
          lambda one: one.sharpness.plain, 60, is_least=True, is_on=False),
    Check("dark", "even its bright parts are dark", lambda one: one.tones.brightest, 50, is_least=True),
    Check("overexposed", "even its dark parts are bright", lambda one: one.tones.darkest, 235, is_least=False),
    Check("low_information", "next to nothing in it", lambda one: one.tones.entropy, 1, is_least=True),
    Check("greyscale", "no colour; many packs have none", lambda one: one.tones.colour, 8, is_least=True, is_on=False),
    _noted("animated", "more than one frame; the first counts"),
    _noted("rotated", "turned as its EXIF block says"),
    _noted("transparent", "put on white"),
    _noted("cmyk", "inks turned into sRGB"),
    _noted("sixteen_bit", "scaled to 8 bits"),
    _noted("profile_applied", "colours turned into sRGB as its profile says"),
    _noted("profile_ignored", "with a colour profile that is broken, misfit or absurd"),
)  # fmt: skip

# The reference experiment used the size of the frame.
_REFERENCE_TOO_SMALL: Final = Check(
    "too_small", "a side below the threshold", lambda one: min(one.width, one.height), 300, is_least=True
)

_DUPLICATE_REASONS: Final[tuple[DuplicateReason, ...]] = get_args(DuplicateReason)
_PRESETS: Final[dict[Rules, frozenset[Reason]]] = {
    "content": frozenset(
        {check.reason for check in CHECKS if check.is_on}
        | {"shared_image", "category_conflict", "duplicate_bytes", "duplicate_pixels", "near_duplicate"}
    ),
    "reference": frozenset({"too_small", "blurred_frame", "equal_reference_hash"}),
    "reference_mended": frozenset({"too_small", "blurred_frame", "equal_dhash"}),
}


@dataclass(frozen=True)
class Choice:
    """The checks that reject, and the measured checks with their thresholds, on and off."""

    on: frozenset[Reason]
    checks: tuple[Check, ...]
    shared_by: int = SHARED_BY

    @property
    def duplicate_reasons(self) -> tuple[DuplicateReason, ...]:
        """Return the duplicate relations that reject, the strictest first."""
        return tuple(reason for reason in _DUPLICATE_REASONS if reason in self.on)

    def check(self, reason: ImageReason) -> Check:
        """Return a measured check, on or off."""
        return next(check for check in self.checks if check.reason == reason)

    def failing(self, metrics: ImageMetrics) -> Check | None:
        """Return the first check that rejects an image by itself."""
        return next((check for check in self.checks if check.reason in self.on and check.fails(metrics)), None)


def choose(
    rules: Rules, thresholds: Mapping[str, float], *,
    only: Sequence[Reason] = (), also: Sequence[Reason] = (), skip: Sequence[Reason] = (), shared_by: int = SHARED_BY,
) -> Choice:  # fmt: skip
    """Return the checks of a set of rules, with the given changes; raises StageError for an unknown check."""
    unknown = set(thresholds) - {check.reason for check in CHECKS}
    if unknown:
        known = ", ".join(check.reason for check in CHECKS)
        raise StageError(f"--thresholds: no check is called {', '.join(sorted(unknown))}; there are {known}")
    on = (frozenset(only) or _PRESETS[rules]) | set(also)
    listed = CHECKS if rules == "content" else (_REFERENCE_TOO_SMALL, *CHECKS[1:])
    checks = tuple(_with_threshold(check, thresholds.get(check.reason, check.threshold)) for check in listed)
    return Choice(on - set(skip), checks, shared_by)


def meaning(reason: str) -> str:
    """Return the explanation of a reason."""
    return next((check.meaning for check in CHECKS if check.reason == reason), MEANINGS.get(reason, ""))


def _with_threshold(check: Check, threshold: float) -> Check:
    return Check(check.reason, check.meaning, check.value, threshold, check.is_least, check.is_on)


def _product_side_px(metrics: ImageMetrics) -> int:
    """Return the longer side of the product's box; of the frame for a photo without a plain background."""
    left, top, right, bottom = metrics.box
    return max(right - left, bottom - top)


def _elongation(metrics: ImageMetrics) -> float:
    return max(metrics.width, metrics.height) / min(metrics.width, metrics.height)

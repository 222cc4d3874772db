"""Foreground segmentation of a product photo with a plain background: mask, box and confidence.

The background is estimated from the border (`skincare.cleaning.background`) and grown inwards over all pixels that
match it or a shadow on it, up to the next edge. The growth does not pass through gaps in an edge, such as those of a
white pack on white. GrabCut then refines the outline.

`METHODS` holds this method and, if installed, rembg; another detector is one more function there.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from skincare.cleaning.background import TOLERANCE, Background, Lab, Mask, fit_background, to_lab
from skincare.cleaning.quality import Box
from skincare.errors import MissingInputError

Reason = Literal[
    "too_small", "no_plain_background", "nothing_stands_out", "cut_by_the_frame", "unclear_outline", "edges_left_out"
]
Method = Literal["classical", "rembg"]

# Segmentation runs at this size; a higher resolution only adds noise.
_SIDE_PX: Final = 320
_LEAST_SIDE_PX: Final = 24
# In CIELAB, of a band-pass: a cream label on white reaches 1.3, the softest drawn shadow 0.2. Chroma counts half, since
# JPEG stores it at half resolution and blurs it around every edge.
_LEAST_EDGE: Final = 0.55
_EDGES_OVER_GRAIN: Final = 3.0
_CHROMA_WEIGHT: Final = 0.5
# A shadow preserves the colour of the background and at least this share of its lightness.
_SHADOW_LIGHT: Final = 0.6
_SHADOW_TINT: Final = 0.12
# In pixels: how wide a gap in an edge may be on either side of its middle; how far GrabCut may move the outline.
_GAP_PX: Final = 3
_INWARD_PX: Final = 4
_OUTWARD_PX: Final = 3
_N_GRABCUTS: Final = 3
# Minimum area of a part, as a share of the largest part and of the image.
_PART_SHARE: Final = 0.1
_SPECK_SHARE: Final = 0.002
# Of 192 real photos and 599 drawn ones: packs that touch the frame reach 0.15, photos of scenes begin at 0.19.
_CUT_SHARE: Final = 0.16
_LEAST_CONFIDENCE: Final = 0.5
_LEAST_STEP: Final = 2.0
# Chosen on 166 crops of real photos that were checked by hand. These thresholds reject all 4 crops that lose a part of
# the product, 6 of 7 with parts of a scene, and 16 of the 155 good ones, most with a logo or a caption; none of 48
# drawn packs with shadows is close to them. A rejected image is not cropped.
_LEAST_PLAIN_SHARE: Final = 0.93
_MOST_EDGES_OUTSIDE: Final = 0.0135
_OUTSIDE_STEP: Final = 2.5
# In pixels; soft shadows and the blur of the outline are closer to the mask.
_OUTSIDE_DISTANCE_PX: Final = 4
_FRAME_PX: Final = 2


class NoProductError(ValueError):
    """The product cannot be segmented; `reason` is one word for a table."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


@dataclass(frozen=True)
class Foreground:
    """A product in an image.

    alpha: (H, W) uint8, 255 where the product is, 0 where not; box: its (left, top, right, bottom) in pixels;
    confidence: 0 to 1, the share of its outline where colours change, less with every edge that lies outside the mask.
    """

    alpha: npt.NDArray[np.uint8]
    box: Box
    confidence: float


def segment_product(image: Image.Image) -> Foreground:
    """Segment the product of an RGB image by classical methods; raises NoProductError."""
    scale = min(1.0, _SIDE_PX / max(image.size))
    size = (round(image.width * scale), round(image.height * scale))
    if min(size) < _LEAST_SIDE_PX:
        raise NoProductError("too_small")
    pixels = cv2.resize(np.asarray(image), size, interpolation=cv2.INTER_AREA)
    lab = to_lab(pixels)  # type: ignore[arg-type]
    background = fit_background(lab)
    if not background.is_plain:
        raise NoProductError("no_plain_background")
    mask = _without_holes(_large_parts(~_spread(_background_like(lab, background))))
    mask = _large_parts(_grabcut(pixels, _snapped(pixels, mask)))
    _check_frame(mask)
    if background.plain_share < _LEAST_PLAIN_SHARE:
        raise NoProductError("no_plain_background")
    confidence = _edge_share(lab, mask)
    if confidence < _LEAST_CONFIDENCE:
        raise NoProductError("unclear_outline")
    outside = _edges_outside(lab - background.colours, mask)
    if outside > _MOST_EDGES_OUTSIDE:
        raise NoProductError("edges_left_out")
    return _enlarged(mask, image.size, confidence * (1 - outside / (2 * _MOST_EDGES_OUTSIDE)))


def _background_like(lab: Lab, background: Background) -> Mask:
    """Return the mask of pixels that are background or shadow, and not an edge."""
    difference = lab - background.colours
    chroma = np.linalg.norm(difference[..., 1:], axis=2)
    light, ground = lab[..., 0], np.maximum(background.colours[..., 0], 1)
    is_shadow = (light < ground + TOLERANCE) & (light > _SHADOW_LIGHT * ground)
    is_shadow &= chroma < TOLERANCE + _SHADOW_TINT * np.maximum(ground - light, 0)
    weights = np.array([1, _CHROMA_WEIGHT, _CHROMA_WEIGHT], dtype=np.float32)
    band_pass = cv2.GaussianBlur(difference, (0, 0), 0.7) - cv2.GaussianBlur(difference, (0, 0), 2.5)
    edge = np.linalg.norm(band_pass * weights, axis=2)
    least = _LEAST_EDGE + _EDGES_OVER_GRAIN * float(np.median(edge[background.border]))
    return ((np.linalg.norm(difference, axis=2) < TOLERANCE) | is_shadow) & (edge < least)


def _spread(free: Mask) -> Mask:
    """Return the free pixels that a disc reaches from outside the frame by moving over free pixels only."""
    outside = _GAP_PX + 1
    padded = np.pad(free, outside, mode="edge").astype(np.uint8)
    centres = cv2.erode(padded, _disc(_GAP_PX))
    labels = cv2.connectedComponents(centres, connectivity=4)[1]
    ring = np.ones_like(free)
    ring[1:-1, 1:-1] = False
    at_border = labels[outside:-outside, outside:-outside][ring]
    reached = np.isin(labels, np.unique(at_border[at_border > 0])).astype(np.uint8)
    grown = cv2.dilate(reached, _disc(_GAP_PX))[outside:-outside, outside:-outside] > 0
    return grown & free


def _large_parts(mask: Mask) -> Mask:
    """Return the mask without small parts; raises NoProductError if nothing remains."""
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
    areas = statistics[1:, cv2.CC_STAT_AREA]
    if not len(areas):
        raise NoProductError("nothing_stands_out")
    least = max(_PART_SHARE * areas.max(), _SPECK_SHARE * mask.size)
    if areas.max() < least:
        raise NoProductError("nothing_stands_out")
    return np.isin(labels, 1 + np.flatnonzero(areas >= least))


def _without_holes(mask: Mask) -> Mask:
    ground = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    labels = cv2.connectedComponents(ground, connectivity=4)[1]
    return (labels != labels[0, 0])[1:-1, 1:-1]


def _snapped(pixels: Any, mask: Mask) -> Mask:
    """Return the mask shrunk to the strongest edge near its outline, by a watershed; thin parts do not change."""
    filled = mask.astype(np.uint8)
    core = cv2.erode(filled, _disc(_INWARD_PX))
    markers = np.zeros(mask.shape, np.int32)
    markers[cv2.dilate(filled, _disc(1)) == 0] = 1
    markers[core > 0] = 2
    # The watershed writes -1 along the border of the image.
    markers = np.pad(markers, 1, mode="edge")
    cv2.watershed(np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="edge"), markers)
    thin = cv2.dilate(core, _disc(_INWARD_PX + 2)) == 0
    return mask & ((markers[1:-1, 1:-1] != 1) | thin)


def _grabcut(pixels: Any, mask: Mask) -> Mask:
    """Return the mask with its outline refined by GrabCut."""
    filled = mask.astype(np.uint8)
    grown = cv2.dilate(filled, np.ones((2 * _OUTWARD_PX + 1,) * 2, np.uint8))
    core = cv2.erode(filled, np.ones((2 * _INWARD_PX + 1,) * 2, np.uint8))
    labels = np.where(mask, cv2.GC_PR_FGD, np.where(grown > 0, cv2.GC_PR_BGD, cv2.GC_BGD)).astype(np.uint8)
    labels[core > 0] = cv2.GC_FGD
    if not core.any() or grown.all():
        return mask
    # GrabCut initialises its clusters at random.
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(pixels, labels, None, *models, _N_GRABCUTS, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def _check_frame(mask: Mask) -> None:
    frame = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    if frame.mean() > _CUT_SHARE:
        raise NoProductError("cut_by_the_frame")


def _edge_share(lab: Lab, mask: Mask) -> float:
    """Return the share of the outline where the colours inside and outside differ."""
    filled = mask.astype(np.uint8)
    inside, outside = (filled - cv2.erode(filled, _disc(1))) > 0, (cv2.dilate(filled, _disc(1)) - filled) > 0
    smooth = cv2.GaussianBlur(lab, (0, 0), 0.7)
    darkest, lightest = cv2.erode(smooth, _disc(2)), cv2.dilate(smooth, _disc(2))
    step = np.linalg.norm(lightest - darkest, axis=2)
    outline = inside | outside
    return float((step[outline] >= _LEAST_STEP).mean()) if outline.any() else 0.0


def _edges_outside(difference: Lab, mask: Mask) -> float:
    """Return the area of the edges outside the mask and its surroundings, as a share of the mask's area.

    difference: (H, W, 3), the image less its background. A part of the product in the colour of the background,
    such as a white cap on white, is visible only by its edges.
    """
    smooth = cv2.GaussianBlur(difference, (0, 0), 1.0)
    step = np.linalg.norm(cv2.dilate(smooth, np.ones((3, 3))) - cv2.erode(smooth, np.ones((3, 3))), axis=2)
    outside = cv2.dilate(mask.astype(np.uint8), _disc(_OUTSIDE_DISTANCE_PX)) == 0
    inner = np.zeros_like(mask)
    inner[_FRAME_PX:-_FRAME_PX, _FRAME_PX:-_FRAME_PX] = True
    return float(((step > _OUTSIDE_STEP) & outside & inner).sum() / mask.sum())


def _enlarged(mask: Mask, size: tuple[int, int], confidence: float) -> Foreground:
    """Return the mask at the size of the image, with an edge blurred over about one pixel of the small mask."""
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.7)
    alpha = cv2.resize(soft, size, interpolation=cv2.INTER_CUBIC)
    return from_alpha(np.round(np.clip(alpha * 255, 0, 255)).astype(np.uint8), confidence)


def from_alpha(alpha: npt.NDArray[np.uint8], confidence: float) -> Foreground:
    """Return the product of an alpha channel; raises NoProductError if it is empty."""
    left, top, width, height = cv2.boundingRect((alpha > 127).astype(np.uint8))
    if not width:
        raise NoProductError("nothing_stands_out")
    return Foreground(alpha, (left, top, left + width, top + height), confidence)


def _disc(radius: int) -> Any:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def find_by_rembg(image: Image.Image) -> Foreground:
    """Segment the product by the network of rembg, on any background; confidence: how close its alpha is to 0 or 1."""
    session = _rembg_session()
    import rembg

    alpha = np.asarray(rembg.remove(image, only_mask=True, session=session).convert("L"))
    confidence = float(np.abs(alpha[alpha > 0] / 127.5 - 1).mean()) if alpha.any() else 0.0
    return from_alpha(alpha, confidence)


@functools.cache
def _rembg_session() -> Any:
    """Load the network once per process."""
    try:
        import rembg
    except ImportError as error:
        raise MissingInputError("rembg", "this Python", 'Install it with `pip install "rembg[cpu]"`.') from error
    return rembg.new_session()


METHODS: Final[Mapping[Method, Callable[[Image.Image], Foreground]]] = {
    "classical": segment_product,
    "rembg": find_by_rembg,
}

"""Shapes of the sample shop's packs, as parts in the unit square."""

from typing import Final, NamedTuple

from skincare.sample.marks import Box


class Part(NamedTuple):
    """One part of a container: a shape in a box of the unit square, in the colour of the body or the cap."""

    role: str
    shape: str
    box: Box
    roundness: float = 0.0


class Container(NamedTuple):
    """A shape of pack: width over height, parts from back to front, area of the label."""

    aspect: float
    parts: tuple[Part, ...]
    label: Box


# No word here may name a category or an alias of one: the tiny model must describe, not classify.
CONTAINERS: Final[dict[str, Container]] = {
    "jar": Container(
        1.25, (Part("body", "rect", (0.02, 0.3, 0.98, 1), 0.14), Part("cap", "rect", (0, 0, 1, 0.34), 0.06)),
        (0.14, 0.42, 0.86, 0.94),
    ),
    "tube": Container(
        0.46, (Part("body", "taper", (0, 0, 1, 0.86)), Part("cap", "rect", (0.2, 0.84, 0.8, 1), 0.04)),
        (0.2, 0.16, 0.8, 0.7),
    ),
    "dropper": Container(
        0.5,
        (
            Part("body", "rect", (0.04, 0.38, 0.96, 1), 0.14), Part("body", "rect", (0.36, 0.3, 0.64, 0.45)),
            Part("cap", "rect", (0.3, 0.17, 0.7, 0.35), 0.03), Part("cap", "ellipse", (0.36, 0, 0.64, 0.22)),
        ),
        (0.1, 0.48, 0.9, 0.95),
    ),
    "pump": Container(
        0.48,
        (
            Part("body", "rect", (0.04, 0.3, 0.96, 1), 0.12), Part("cap", "rect", (0.28, 0.2, 0.72, 0.31), 0.02),
            Part("cap", "rect", (0.45, 0.06, 0.55, 0.22)), Part("cap", "rect", (0.02, 0.03, 0.62, 0.1), 0.03),
        ),
        (0.1, 0.42, 0.9, 0.92),
    ),
    "atomiser": Container(
        0.36,
        (
            Part("body", "rect", (0.02, 0.27, 0.98, 1), 0.1), Part("cap", "rect", (0.2, 0, 0.8, 0.25), 0.1),
            Part("body", "rect", (0.3, 0.22, 0.7, 0.3)),
        ),
        (0.08, 0.4, 0.92, 0.88),
    ),
    "tin": Container(
        2.0, (Part("body", "rect", (0.01, 0.3, 0.99, 1), 0.1), Part("cap", "rect", (0, 0, 1, 0.26), 0.06)),
        (0.26, 0.32, 0.74, 0.97),
    ),
    "sachet": Container(
        0.78,
        (
            Part("body", "zigzag", (0, 0, 1, 1)), Part("cap", "rect", (0.0, 0.07, 1, 0.16)),
            Part("cap", "rect", (0, 0.9, 1, 0.94)),
        ),
        (0.14, 0.26, 0.86, 0.82),
    ),
    "stick": Container(
        0.3, (Part("body", "rect", (0, 0.36, 1, 1), 0.08), Part("cap", "rect", (0.06, 0, 0.94, 0.37), 0.12)),
        (0.05, 0.48, 0.95, 0.92),
    ),
    "bottle": Container(
        0.52, (Part("body", "arch", (0, 0, 1, 0.88)), Part("cap", "rect", (0.1, 0.86, 0.9, 1), 0.05)),
        (0.12, 0.24, 0.88, 0.78),
    ),
    "flask": Container(
        0.86,
        (
            Part("body", "rect", (0.38, 0.1, 0.62, 0.4)), Part("body", "ellipse", (0, 0.24, 1, 1)),
            Part("cap", "rect", (0.34, 0, 0.66, 0.16), 0.03),
        ),
        (0.2, 0.4, 0.8, 0.88),
    ),
}  # fmt: skip

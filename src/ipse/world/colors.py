"""Named colors: what clothes, hair and eyes may be, and the word for a color that was given as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

RGB = tuple[float, float, float]

#: Cloth, paint and plastic, sRGB in 0..1. Few and far apart: a caption's word must be one that everybody would choose.
COLORS: dict[str, RGB] = {
    "black": (0.07, 0.07, 0.08),
    "white": (0.93, 0.93, 0.92),
    "gray": (0.50, 0.50, 0.51),
    "red": (0.76, 0.11, 0.13),
    "orange": (0.93, 0.48, 0.10),
    "yellow": (0.95, 0.80, 0.18),
    "green": (0.13, 0.50, 0.23),
    "turquoise": (0.18, 0.68, 0.66),
    "light blue": (0.55, 0.74, 0.91),
    "blue": (0.13, 0.32, 0.76),
    "navy": (0.08, 0.12, 0.31),
    "purple": (0.43, 0.19, 0.58),
    "pink": (0.94, 0.56, 0.70),
    "brown": (0.40, 0.25, 0.14),
    "beige": (0.84, 0.76, 0.62),
    "olive": (0.40, 0.41, 0.18),
    "burgundy": (0.42, 0.07, 0.16),
}

#: Hair as it grows.
HAIR_COLORS: dict[str, RGB] = {
    "black": (0.055, 0.045, 0.04),
    "dark brown": (0.16, 0.10, 0.07),
    "brown": (0.29, 0.19, 0.12),
    "light brown": (0.46, 0.33, 0.21),
    "blond": (0.72, 0.57, 0.36),
    "auburn": (0.36, 0.14, 0.08),
    "red": (0.62, 0.27, 0.11),
}

#: What hair turns to with age.
GRAY_HAIR: RGB = (0.58, 0.57, 0.56)
WHITE_HAIR: RGB = (0.86, 0.85, 0.83)

#: Hair as it may be dyed, or seen.
DYED_COLORS: dict[str, RGB] = {
    **HAIR_COLORS,
    "gray": GRAY_HAIR,
    "white": WHITE_HAIR,
    "pink": (0.85, 0.42, 0.58),
    "blue": (0.20, 0.36, 0.68),
    "green": (0.22, 0.48, 0.30),
    "purple": (0.42, 0.22, 0.55),
}

IRIS_COLORS: dict[str, RGB] = {
    "dark brown": (0.17, 0.09, 0.05),
    "brown": (0.32, 0.18, 0.09),
    "amber": (0.52, 0.33, 0.12),
    "hazel": (0.42, 0.36, 0.18),
    "green": (0.33, 0.45, 0.27),
    "gray": (0.47, 0.51, 0.54),
    "blue": (0.31, 0.48, 0.67),
}

LIP_COLORS: dict[str, RGB] = {
    "red": (0.72, 0.07, 0.12),
    "pink": (0.85, 0.40, 0.52),
    "brown": (0.46, 0.22, 0.17),
    "burgundy": (0.40, 0.06, 0.15),
    "coral": (0.90, 0.40, 0.33),
    "purple": (0.45, 0.15, 0.42),
}

SHADOW_COLORS: dict[str, RGB] = {
    "brown": (0.38, 0.26, 0.20),
    "gray": (0.35, 0.35, 0.37),
    "blue": (0.28, 0.40, 0.66),
    "green": (0.27, 0.46, 0.36),
    "purple": (0.45, 0.28, 0.55),
    "pink": (0.83, 0.52, 0.60),
    "gold": (0.72, 0.58, 0.30),
}


def nearest(rgb: Sequence[float], palette: Mapping[str, RGB]) -> str:
    """The name of the palette's color that looks most like an sRGB color.

    Distance is the "redmean" approximation of perceived difference, which needs nothing but arithmetic.
    """

    def distance(name: str) -> float:
        red, green, blue = (a - b for a, b in zip(rgb, palette[name], strict=True))
        mean = (rgb[0] + palette[name][0]) / 2
        return (2 + mean) * red * red + 4 * green * green + (3 - mean) * blue * blue

    return min(palette, key=distance)

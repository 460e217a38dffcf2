"""Colours of classes, and of the text on them."""

import colorsys

from PIL import ImageColor

Colour = tuple[int, int, int]
"""Red, green and blue, 0..255."""

PALETTE = (
    "#f5364d",
    "#1e88ff",
    "#2fbf5b",
    "#ffa21a",
    "#a44ff0",
    "#12c7d6",
    "#ff5fc4",
    "#b6d91e",
    "#a5673f",
    "#ffe14a",
    "#5560f2",
    "#8fa3b5",
)
"""Colours of the first classes; further ones are spread over the colour circle."""

_GOLDEN_TURN = 0.618034


def class_colour(index: int) -> Colour:
    """Return the colour of a class: always the same, and unlike those of its neighbours.

    Example:
        >>> class_colour(0)
        (245, 54, 77)
    """
    if index < len(PALETTE):
        red, green, blue = ImageColor.getrgb(PALETTE[index])[:3]
        return red, green, blue
    value = (0.95, 0.75)[index % 2]
    channels = colorsys.hsv_to_rgb(index * _GOLDEN_TURN % 1, (0.55, 0.85)[index // 2 % 2], value)
    return tuple(round(255 * channel) for channel in channels)  # type: ignore[return-value]


def text_colour(background: Colour) -> Colour:
    """Return near-black or white, whichever has more contrast (relative luminance of WCAG 2)."""
    linear = [((channel / 255 + 0.055) / 1.055) ** 2.4 for channel in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # White has less contrast than near-black where (1.05 / (l + .05)) < ((l + .05) / .058).
    return (255, 255, 255) if luminance < 0.193 else (16, 18, 24)

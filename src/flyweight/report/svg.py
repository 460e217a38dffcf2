"""SVG elements as escaped text."""

from collections.abc import Mapping
from xml.sax.saxutils import escape, quoteattr


def element(name: str, attributes: Mapping[str, object], *children: str) -> str:
    """Return one element; `children` are elements, not raw text.

    Underscores in attribute names become hyphens, and a last underscore is removed (`class_`).
    Numbers are rounded to two decimals.

    Example:
        >>> element("rect", {"width": 3.14159, "stroke_width": 1, "class_": "bar"})
        '<rect width="3.14" stroke-width="1" class="bar"/>'
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}={quoteattr(_plain(value))}"
        for key, value in attributes.items()
    )
    return f"<{name}{written}>{''.join(children)}</{name}>" if children else f"<{name}{written}/>"


def text(content: str, x: float, y: float, **attributes: object) -> str:
    """Return a text element at (`x`, `y`), the start of the baseline unless an anchor is given.

    Example:
        >>> text("<b>", 1, 2)
        '<text x="1" y="2">&lt;b&gt;</text>'
    """
    return element("text", {"x": x, "y": y, **attributes}, escape(content))


def title(content: str) -> str:
    """Return the element that describes its parent, for tooltips and screen readers."""
    return f"<title>{escape(content)}</title>"


def polyline(points: list[tuple[float, float]], **attributes: object) -> str:
    """Return a line through `points`."""
    joined = " ".join(f"{_plain(x)},{_plain(y)}" for x, y in points)
    return element("polyline", {"points": joined, **attributes})


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)

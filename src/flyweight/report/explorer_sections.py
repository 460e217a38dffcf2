"""Sections of the page that show a scan: the plan explorer and the sensitivity curves."""

import json
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from flyweight.report.curve_charts import curve_chart, frame_of
from flyweight.report.explorer import Explorer
from flyweight.report.units import scale_for, unit_of

MAX_DROP = {"key": "max_drop", "label": "Max drop of each layer"}
_ENDINGS = (".weights", ".weight")


def explorer_values(shown: Explorer) -> Mapping[str, Any]:
    """Return the values of the template `explorer.html`."""
    full = [group.size for group in shown.groups]
    return {
        "metric": shown.metric,
        "fraction": shown.is_fraction,
        "modes": [MAX_DROP, *({"key": q.key, "label": q.label} for q in shown.quantities)],
        "costs": [_cost(shown, place, full) for place in range(len(shown.quantities))],
        "layers": [
            {
                "name": layer.name,
                "short": short_name(layer.name),
                "channels": sum(full[group] for group, _ in layer.orders),
            }
            for layer in shown.layers
        ],
        "command": shown.command,
        "predicted": [q.predicted for q in shown.quantities if q.predicted],
        "notes": shown.notes,
        "data": Markup(
            _script_safe(json.dumps(shown.model_dump(mode="json"), separators=(",", ":")))
        ),
    }


def sensitivity_values(shown: Explorer) -> Mapping[str, Any]:
    """Return the values of the template `sensitivity.html`."""
    frame = frame_of(shown)
    return {
        "metric": shown.metric,
        "baseline": f"{100 * shown.baseline:.1f} %" if frame.percent else f"{shown.baseline:.4g}",
        "intervals": any(spot.interval for layer in shown.layers for spot in layer.spots),
        "charts": [
            {
                "name": layer.name,
                "short": short_name(layer.name),
                "drawing": Markup(curve_chart(layer, shown.baseline, frame)),
            }
            for layer in shown.layers
        ],
    }


def short_name(layer: str) -> str:
    """Return the name of a layer without the ending ".weight" or ".weights".

    Example:
        >>> short_name("yolo_block.0.tip.conv.weights")
        'yolo_block.0.tip.conv'
    """
    return next((layer[: -len(end)] for end in _ENDINGS if layer.endswith(end)), layer)


def price(shown: Explorer, place: int, widths: list[int]) -> float:
    """Return the cost of a network of these widths, by the formula of the script in the page."""
    sizes = [fixed + sum(each * widths[g] for g, each in shares) for fixed, shares in shown.axes]
    total = 0.0
    for factors, axes in shown.products:
        product = factors[place]
        for axis in axes:
            product *= sizes[axis]
        total += product
    return total


def _cost(shown: Explorer, place: int, full: list[int]) -> dict[str, Any]:
    quantity = shown.quantities[place]
    scale = scale_for(quantity.unit, [price(shown, place, full)])
    symbol = scale.symbol + unit_of(quantity.unit).suffix
    known = {"key": quantity.key, "label": quantity.label}
    return {**known, "divisor": scale.divisor, "symbol": symbol}


def _script_safe(text: str) -> str:
    """Return JSON without "<", so that it cannot end the script element around it."""
    return text.replace("<", "\\u003c")

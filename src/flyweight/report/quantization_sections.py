"""Values of the page's section on quantization: metrics, steps, layers, costs of layers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from flyweight.errors import counted
from flyweight.report import svg
from flyweight.report.formatting import ABSENT
from flyweight.report.line_charts import ticks
from flyweight.report.quantization_results import QuantizationResult, QuantizedLayer

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 1016.0, 200.0, 64.0, 10.0, 24.0
_WIDEST = 30.0  # of a bar with its gap
_MOST_LISTED = 10
_MIB = 2**20
_RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


def quantization_values(found: QuantizationResult | None) -> Mapping[str, Any] | None:
    """Return the values of the template `quantization.html`; None without a quantized network."""
    if found is None:
        return None
    costly = costliest(found)
    return {
        "summary": summary(found),
        "rows": comparison(found),
        "steps": [step_cells(found, place) for place in range(len(found.steps))],
        "drawing": Markup(loss_chart(found.layers)) if costly else None,
        "costly": [{"name": one.name, "loss": loss_text(one)} for one in costly],
        "floats": [one for one in found.layers if one.precision != "int8"],
        "measured_on": found.measured_on,
    }


def summary(found: QuantizationResult) -> str:
    """Return how many layers are integer, in a sentence."""
    every = counted(len(found.layers), "layer")
    runtime = _RUNTIMES.get(found.runtime, found.runtime)
    return f"{found.integer_count} of {every} run on integers in {runtime}."


def comparison(found: QuantizationResult) -> list[tuple[str, str, str, str]]:
    """Return name, values of the float and the quantized network, and the change."""
    pair = found.metrics.get(found.metric, {})
    sizes = [found.file_bytes.get(kind, 0.0) for kind in ("float", "int8")]
    rows = []
    if len(pair) == 2:  # A metric without any object has no number.
        before, after = 100 * pair["float"], 100 * pair["int8"]
        change = f"{after - before:+.2f} points"
        rows.append((found.metric, f"{before:.2f} %", f"{after:.2f} %", change))
    ratio = f"{sizes[0] / sizes[1]:.2f}\N{MULTIPLICATION SIGN} smaller" if all(sizes) else ABSENT
    shown = [f"{size / _MIB:.2f} MiB" for size in sizes]
    return [*rows, ("file", shown[0], shown[1], ratio)]


def step_cells(found: QuantizationResult, place: int) -> tuple[str, str, str, str]:
    """Return name, metric before, metric after, and the change of a step."""
    step = found.steps[place]
    before, after = 100 * step.before, 100 * step.after
    return step.name, f"{before:.2f} %", f"{after:.2f} %", f"{after - before:+.2f}"


def costliest(found: QuantizationResult) -> list[QuantizedLayer]:
    """Return the layers whose quantization costs most, the first ones of the list."""
    measured = [layer for layer in found.layers if layer.loss is not None]
    return sorted(measured, key=lambda layer: -(layer.loss or 0.0))[:_MOST_LISTED]


def loss_text(layer: QuantizedLayer) -> str:
    """Return the loss of a layer in percent."""
    return ABSENT if layer.loss is None else f"{100 * layer.loss:.3g} %"


def loss_chart(layers: Sequence[QuantizedLayer]) -> str:
    """Return one chart of what the quantization of each layer alone costs, in their order.

    Layers that stay float have no bar but a mark on the line.
    """
    full = max((100 * layer.loss for layer in layers if layer.loss), default=0.0) or 1.0
    pitch = min(_WIDEST, (_WIDTH - _LEFT) / len(layers))
    label = f"Squared error by the quantization of each of {counted(len(layers), 'layer')} alone"
    return svg.element(
        "svg",
        {"viewBox": f"0 0 {_WIDTH:.0f} {_HEIGHT:.0f}", "role": "img", "aria-label": label},
        *_grid(full, _LEFT + pitch * len(layers)),
        *(_bar(layer, place, pitch, full) for place, layer in enumerate(layers)),
    )


def _grid(full: float, right: float) -> Iterator[str]:
    for mark in (mark for mark in ticks([0.0, full], 4) if mark <= full):
        level = _HEIGHT - _BOTTOM - _tall(mark, full)
        line = {"x1": _LEFT, "x2": right, "y1": level, "y2": level, "class": "grid"}
        yield svg.element("line", line)
        yield svg.text(f"{mark:.3g} %", _LEFT - 8, level + 4, text_anchor="end")
    yield svg.text("layers in the order of the network", _LEFT, _HEIGHT - 4)


def _tall(loss: float, full: float) -> float:
    return (_HEIGHT - _TOP - _BOTTOM) * loss / full


def _bar(layer: QuantizedLayer, place: int, pitch: float, full: float) -> str:
    left, gap = _LEFT + place * pitch, min(4.0, pitch / 4)
    loss = 100 * (layer.loss or 0.0)
    stays = layer.precision != "int8"
    tall = 4.0 if stays else max(_tall(loss, full), 1.0)
    text = f"float: {layer.reason}" if stays else f"costs {loss_text(layer)}"
    over = {"x": left, "y": _TOP, "width": pitch, "height": _HEIGHT - _TOP - _BOTTOM}
    bar = {
        "class": "before" if stays else "after",
        "x": left + gap / 2,
        "y": _HEIGHT - _BOTTOM - tall,
        "width": pitch - gap,
        "height": tall,
    }
    whole = svg.element("rect", {"class": "over", **over})
    title = svg.title(f"{layer.name}: {text}")
    return svg.element("g", {"class": "layer"}, title, whole, svg.element("rect", bar))

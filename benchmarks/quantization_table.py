"""The rows of the benchmark of quantized networks as the table of the README."""

from collections.abc import Mapping, Sequence

TITLES = {
    "mobilenet_v2_clothing10": "MobileNetV2, clothes",
    "yolov3_mobilenet_v1_bccd": "YOLOv3-MobileNetV1, blood cells",
    "yolov3_mobilenet_v1_bccd_r578": "the same, pruned (r578), 1500 steps",
    "deeplabv3p_camvid11": "DeepLabV3+, streets",
    "unet_nuclei": "UNet, nuclei",
}
"""Trained networks, by the names of their rows, to those for readers."""
TOOLS = {
    "flyweight": "**flyweight**",
    "quantize_static": "quantize_static",
    "nncf": "NNCF",
    "aimet": "AIMET",
    "torchao": "torchao",
}
"""Tools, by the names of their rows, to those for readers."""
INSTRUCTIONS = "avx2 avx512_vnni avx512_bf16"
"""Of the processor that is shown."""

_TIMES = "\N{MULTIPLICATION SIGN}"
Row = Mapping[str, str]


def markdown(rows: Sequence[Row], source: str) -> str:
    """Return the table with what one must know to judge it, or nothing.

    Args:
        rows: Of `results/quantization.csv`.
        source: Path of that file, from the page.
    """
    shown = [row for row in rows if row["instructions"] == INSTRUCTIONS and row["tool"] in TOOLS]
    lines = [line for name, title in TITLES.items() if (line := _line(title, name, shown))]
    if not lines:
        return ""
    head = ["network", "float", *TOOLS.values()]
    table = [head, ["---", *["--:"] * (len(head) - 1)], *lines]
    first = shown[0]
    facts = [first["hardware"].split(",")[0], first["versions"].split("-")[0], first["date"]]
    text = "\n".join(f"| {' | '.join(line)} |" for line in table)
    return f"{text}\n\n{'; '.join(facts)}; [rows]({source}).\n"


def _line(title: str, name: str, rows: Sequence[Row]) -> list[str]:
    mine = {row["tool"]: row for row in rows if row["network"] == name}
    if "flyweight" not in mine:
        return []
    return [title, _percent(mine["flyweight"]["metric_float"]), *(_cell(mine, t) for t in TOOLS)]


def _cell(mine: Mapping[str, Row], tool: str) -> str:
    row = mine.get(tool)
    if row is None or not row["metric"]:
        return "\N{EN DASH}"
    speed = [f"{float(row[f'{name}_ratio']):.1f}{_TIMES}" for name in ("onnxruntime", "openvino")]
    return f"{_percent(row['metric'])}; {', '.join(speed)}"


def _percent(share: str) -> str:
    return f"{100 * float(share):.1f}"

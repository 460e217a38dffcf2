"""`flyweight models`: the built-in networks and configs."""

from flyweight import pipeline
from flyweight.cli import heavy
from flyweight.cli.console import show, show_json
from flyweight.cli.options import Json
from flyweight.errors import counted

_HEADS = ("name", "task", "data", "input (height x width)")


def models(json: Json = False) -> None:
    """List models and built-in configs."""
    specs = heavy.SPECS.values()
    configs = {name: _described(name) for name in pipeline.known_configs()}
    if json:
        rows = {spec.name: {"task": spec.task, "summary": spec.summary} for spec in specs}
        show_json({"models": rows, "configs": configs})
        return
    show("models")
    show("\n".join(f"  {spec.name}  ({spec.task}) {spec.summary}" for spec in specs))
    show(f"  {', '.join(f'{library}/NAME' for library in heavy.LIBRARIES)}  of other libraries")
    show("  package.module:function  your own")
    show("\nconfigs (for -c)")
    show(_table([_HEADS, *((name, *map(str, row.values())) for name, row in configs.items())]))


def _described(name: str) -> dict[str, str]:
    """Return task, data and input size of a built-in config."""
    _, config = pipeline.load_config(name)
    data, size = config.data, config.preprocessing
    labels = "1 class" if config.num_classes == 1 else f"{config.num_classes:,} classes"
    made = f"generated: {counted(data.train_count, 'image')}" if data.made_up else data.root
    return {
        "task": pipeline.kind_of(config),
        "data": f"{data.format}, {labels} ({made})",
        "input_size": f"{size.height} x {size.width}",
    }


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join(f"  {line}" for line in lines)

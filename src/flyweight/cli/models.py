"""`flyweight models`: the built-in networks and configs."""

from flyweight import pipeline
from flyweight.cli import heavy
from flyweight.cli.console import show, show_json
from flyweight.cli.options import Json


def models(json: Json = False) -> None:
    """List models and built-in configs."""
    specs, configs = heavy.SPECS.values(), pipeline.known_configs()
    if json:
        rows = {spec.name: {"task": spec.task, "summary": spec.summary} for spec in specs}
        show_json({"models": rows, "configs": list(configs)})
        return
    show("models")
    show("\n".join(f"  {spec.name}  ({spec.task}) {spec.summary}" for spec in specs))
    show(f"  {', '.join(f'{library}/NAME' for library in heavy.LIBRARIES)}  of other libraries")
    show("  package.module:function  your own")
    show("\nconfigs (for -c)")
    show("\n".join(f"  {name}" for name in configs))

"""Names of parameters as users type them, in the spelling of torch or of the originals."""

from collections.abc import Iterable, Mapping

from flyweight.errors import PlanError, nearest

# Endings of names in the originals, and in torch.
_ENDINGS = {
    ".weights": ".weight",
    ".offset": ".bias",
    ".scale": ".weight",
    ".mean": ".running_mean",
    ".var": ".running_var",
    ".variance": ".running_var",
}


def resolve(name: str, known: Iterable[str], aliases: Mapping[str, str] | None = None) -> str:
    """Return the parameter that `name` means.

    Args:
        name: torch's name, the originals' (`yolo_block.0.2.conv.weights`), or an alias.
        known: Parameter names of the model.
        aliases: Parameter names by the model's own old names.

    Raises:
        PlanError: No parameter has this name.

    Example:
        >>> resolve("tip.conv.weights", ["tip.conv.weight"])
        'tip.conv.weight'
    """
    names = set(known)
    for candidate in _candidates(name, aliases or {}):
        if candidate in names:
            return candidate
    raise PlanError(
        f"A parameter name must be one of the model's. Received '{name}'. {nearest(name, names)} "
        "List them with: flyweight params -c CONFIG"
    )


def _candidates(name: str, aliases: Mapping[str, str]) -> list[str]:
    found = [name, aliases.get(name, name)]
    found += [name.removesuffix(old) + new for old, new in _ENDINGS.items() if name.endswith(old)]
    return found

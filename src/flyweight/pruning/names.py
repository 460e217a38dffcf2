"""Names of parameters as users type them, in the spelling of torch or of the originals."""

from collections.abc import Container, Iterable, Mapping

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


def resolve_group(
    name: str,
    groups: Container[str],
    tensors: Iterable[str],
    aliases: Mapping[str, str] | None = None,
) -> str:
    """Return the group or the parameter that `name` means.

    Args:
        name: A group's name, whose parameter may be spelled in any way that `resolve` accepts
            (`yolo_block.0.2.conv.weights[8:]`), or a parameter's name.
        groups: Names of the groups.
        tensors: Parameter names of the model.
        aliases: Parameter names by the model's own old names.

    Raises:
        PlanError: No group and no parameter has this name.

    Example:
        >>> resolve_group("both.weights[4:]", ["both.weight", "both.weight[4:]"], ["both.weight"])
        'both.weight[4:]'
    """
    parameter, bracket, place = name.partition("[")
    for candidate in (name, *_candidates(parameter, aliases or {})) if bracket else (name,):
        found = candidate if candidate == name else f"{candidate}[{place}"
        if found in groups:
            return found
    return resolve(name, tensors, aliases)


def _candidates(name: str, aliases: Mapping[str, str]) -> list[str]:
    found = [name, aliases.get(name, name)]
    found += [name.removesuffix(old) + new for old, new in _ENDINGS.items() if name.endswith(old)]
    return found

"""Layers that the user wants to stay float, by patterns of their names."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from flyweight.errors import PlanError, nearest

SCOPES: Mapping[str, tuple[str, ...]] = {
    "res_conv1": ("*.depthwise.conv",),
    "se_block": ("*.se_1", "*.se_2", "*.se.*", "*.block.*.fc[12]"),
    "yolo_output": ("yolo_output.*",),
}
"""Name scopes of the original tools (`--not_quant_pattern`) to patterns of our names: depthwise
convolutions of mobile backbones, squeeze-and-excite layers, and the outputs of YOLO detectors."""


def skipped(patterns: Sequence[str], names: Iterable[str]) -> frozenset[str]:
    """Return the layers that stay float.

    Args:
        patterns: Each is a name scope of the original tools, see `SCOPES`, a pattern as in
            `fnmatch` (`head.*`), or a part of the names of modules (`head`), as the original tools
            took them.
        names: Of all layers, see `graph.Operation.name`.

    Raises:
        PlanError: A pattern matches no layer.

    Example:
        >>> sorted(skipped(["head", "stem.*"], ["stem.conv", "body.conv", "heads.0"]))
        ['heads.0', 'stem.conv']
    """
    layers = tuple(names)
    found: set[str] = set()
    for pattern in patterns:
        matched = {name for name in layers if _matches(pattern, name)}
        if not matched:
            raise PlanError(
                f"A pattern to skip must match a layer. Received '{pattern}', which matches none "
                f"of {len(layers)}. {nearest(pattern, (*SCOPES, *layers))}"
            )
        found |= matched
    return frozenset(found)


def _matches(pattern: str, name: str) -> bool:
    # An operation is named by its module and its kind: head.conv.conv2d.
    module = name.rpartition(".")[0] or name
    if pattern in SCOPES:
        return any(fnmatchcase(one, known) for one in (name, module) for known in SCOPES[pattern])
    return pattern in module or fnmatchcase(module, pattern) or fnmatchcase(name, pattern)

r"""The names that PaddleDetection gave the same parameters.

Users have commands, scripts and sensitivity files with the old names. Two rules make them from
ours, because the modules are named after the originals' layers:

* head: only the ending differs, `yolo_block.0.0.0.conv.weight` was
  `yolo_block.0.0.0.conv.weights`, `...bn.running_mean` was `...bn.mean`;
* backbone: `backbone.` falls away and dots become underscores,
  `backbone.conv2_1.dw.conv.weight` was `conv2_1_dw_weights`,
  `backbone.conv2_1.dw.bn.running_var` was `conv2_1_dw_bn_variance`.
"""

from collections.abc import Iterable

_BACKBONE = "backbone."

_HEAD_ENDINGS = {
    "conv.weight": "conv.weights",
    "conv.bias": "conv.bias",
    "bn.weight": "bn.scale",
    "bn.bias": "bn.offset",
    "bn.running_mean": "bn.mean",
    "bn.running_var": "bn.var",
}

_BACKBONE_ENDINGS = {
    "conv.weight": "weights",
    "bn.weight": "bn_scale",
    "bn.bias": "bn_offset",
    "bn.running_mean": "bn_mean",
    "bn.running_var": "bn_variance",
}


def old_name(name: str) -> str | None:
    """Return the original's name of our parameter or buffer, None where it had none.

    Example:
        >>> old_name("yolo_block.0.0.0.conv.weight")
        'yolo_block.0.0.0.conv.weights'
        >>> old_name("backbone.conv2_1.sep.conv.weight")
        'conv2_1_sep_weights'
        >>> old_name("backbone.conv1.bn.num_batches_tracked") is None
        True
    """
    layer, ending = _split(name)
    if name.startswith(_BACKBONE):
        if ending not in _BACKBONE_ENDINGS:
            return None
        return f"{layer.removeprefix(_BACKBONE).replace('.', '_')}_{_BACKBONE_ENDINGS[ending]}"
    return f"{layer}.{_HEAD_ENDINGS[ending]}" if ending in _HEAD_ENDINGS else None


def old_names(names: Iterable[str]) -> dict[str, str]:
    """Return `{old name: our name}` for all of `names` that have an old one."""
    pairs = ((old_name(name), name) for name in names)
    return {old: name for old, name in pairs if old is not None}


def _split(name: str) -> tuple[str, str]:
    """Return the path of the layer and the last two parts, as in `conv.weight`."""
    parts = name.split(".")
    return ".".join(parts[:-2]), ".".join(parts[-2:])

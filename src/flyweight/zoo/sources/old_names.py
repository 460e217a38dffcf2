r"""The names that PaddleDetection and PaddleX gave the same parameters.

Users have commands, scripts and sensitivity files with the old names. Our modules are named after
the originals' layers, so a few rules make the old names from ours:

* head: only the ending differs, `yolo_block.0.0.0.conv.weight` was
  `yolo_block.0.0.0.conv.weights`, `...bn.running_mean` was `...bn.mean`;
* backbone: `backbone.` falls away and dots become underscores,
  `backbone.conv2_1.dw.conv.weight` was `conv2_1_dw_weights`,
  `backbone.conv2_1.dw.bn.running_var` was `conv2_1_dw_bn_variance`.

What only one family does stands beside its network, as `OLD_NAMES`.
"""

import re
from collections.abc import Iterable

from flyweight.zoo.backbones import resnet
from flyweight.zoo.detectors import blazeface, ssd, two_stage, yolo
from flyweight.zoo.segmenters import unet

Rules = tuple[tuple[str, str], ...]
"""Pairs of a pattern of our names and the old name.

In the old name `{layer}` stands for what the pattern's group `layer` found, with dots as
underscores; `{scope}` for what `scope` found, with dots as slashes; `{path}` for what `path` found,
as it is; `{statistic}` for Paddle's word for what `statistic` found.
"""

_STATISTICS = {
    "weight": "scale",
    "bias": "offset",
    "running_mean": "mean",
    "running_var": "variance",
}

_MOBILENET: Rules = (
    (r"backbone\.(?P<layer>.+)\.conv\.weight", "{layer}_weights"),
    (r"backbone\.(?P<layer>.+)\.bn\.(?P<statistic>\w+)", "{layer}_bn_{statistic}"),
    (r"backbone\.(?P<layer>.+\.se_[12])\.weight", "{layer}_weights"),
    (r"backbone\.(?P<layer>.+\.se_[12])\.bias", "{layer}_offset"),
)

RULES: Rules = (
    *unet.OLD_NAMES,
    *resnet.OLD_NAMES,
    *blazeface.OLD_NAMES,
    *ssd.OLD_NAMES,
    *yolo.OLD_NAMES,
    *two_stage.OLD_NAMES,
    *_MOBILENET,
)
"""The first that fits a name counts."""


def old_name(name: str) -> str | None:
    """Return the original's name of our parameter or buffer, None where it had none.

    Example:
        >>> old_name("yolo_block.0.0.0.conv.weight")
        'yolo_block.0.0.0.conv.weights'
        >>> old_name("backbone.conv2_1.sep.conv.weight")
        'conv2_1_sep_weights'
        >>> old_name("backbone.res5a.branch2b.bn.weight")
        'bn5a_branch2b_scale'
        >>> old_name("backbone.conv1.bn.num_batches_tracked") is None
        True
    """
    for pattern, template in RULES:
        match = re.fullmatch(pattern, name)
        if match is None:
            continue
        found = match.groupdict()
        if "statistic" in found:
            if found["statistic"] not in _STATISTICS:
                return None
            found["statistic"] = _STATISTICS[found["statistic"]]
        if "scope" in found:
            found["scope"] = found["scope"].replace(".", "/")
        if "layer" in found:
            found["layer"] = found["layer"].replace(".", "_")
        return template.format(**found)
    return None


def old_names(names: Iterable[str]) -> dict[str, str]:
    """Return `{old name: our name}` for all of `names` that have an old one."""
    pairs = ((old_name(name), name) for name in names)
    return {old: name for old, name in pairs if old is not None}

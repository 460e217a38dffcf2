r"""Names of the same parameters in PaddleDetection and PaddleX.

Commands, scripts and sensitivity files of users contain the old names. The modules of this package
are named after the layers of the originals, so a few rules convert a name into the old name:

* head: only the ending differs, `yolo_block.0.0.0.conv.weight` was
  `yolo_block.0.0.0.conv.weights`, `...bn.running_mean` was `...bn.mean`;
* backbone: `backbone.` is removed and dots become underscores,
  `backbone.conv2_1.dw.conv.weight` was `conv2_1_dw_weights`,
  `backbone.conv2_1.dw.bn.running_var` was `conv2_1_dw_bn_variance`.

Rules of a single family of networks are in the module of the network, as `OLD_NAMES`.
"""

import re
from collections.abc import Iterable

from flyweight.zoo.backbones import resnet
from flyweight.zoo.detectors import blazeface, ssd, two_stage, yolo
from flyweight.zoo.segmenters import unet

Rules = tuple[tuple[str, str], ...]
"""Pairs (pattern of our names, old name).

In the old name, `{layer}` is the match of the group `layer` with dots as underscores, `{scope}` the
match of `scope` with dots as slashes, `{path}` the match of `path` without change, and
`{statistic}` the name that Paddle has for the match of `statistic`.
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
"""The first rule that matches a name is used."""


def old_name(name: str) -> str | None:
    """Return the old name of a parameter or buffer, or None if it had no name.

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
    """Return `{old name: name}` for those of `names` that have an old name."""
    pairs = ((old_name(name), name) for name in names)
    return {old: name for old, name in pairs if old is not None}

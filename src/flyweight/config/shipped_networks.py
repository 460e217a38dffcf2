"""Trained networks that come with presets, and how they were trained.

`presets/NAME.safetensors` is the trained network of the preset NAME, with weights in half
precision; docs/design/0021-demo-checkpoint.md describes how it was made.
"""

from collections.abc import Mapping
from pathlib import Path

from flyweight.config.preprocessing import Appearance
from flyweight.config.reading import load_config
from flyweight.config.settings import Config
from flyweight.config.training import HARMLESS

SHIPPED: Mapping[str, tuple[str, ...]] = {"digit_detector": ("data.train_count=24000",)}
"""Preset to what its network was trained with besides the preset: `key=value` overrides.

More training images take longer to lay out than a demo should take to start.
"""

_NETWORK = ("model", "task", "num_classes", "width", "model_args", "input_size", "augment")
_FOLDER = Path(__file__).parent / "presets"


def shipped_network(name: str, config: Config) -> Path | None:
    """Return the checkpoint that comes with a preset, if it is the network that `config` asks for.

    Overrides of the network, its input, the data or the training ask for another network, which
    must be trained. The numbers of images may differ.

    Args:
        name: Of the preset.
        config: The preset with overrides.

    Returns:
        The file; None if the preset has none, or `config` asks for another network.
    """
    if name not in SHIPPED:
        return None
    same = _trained(config) == _trained(load_config(name)[1])
    return _FOLDER / f"{name}.safetensors" if same else None


def _trained(config: Config) -> Mapping[str, object]:
    """Return the settings that decide what a trained network is."""
    return {
        **config.model_dump(include={*_NETWORK, *Appearance.model_fields}),
        "data": config.data.model_dump(exclude={"train_count", "val_count"}),
        "train": config.train.model_dump(exclude=set(HARMLESS)),
    }

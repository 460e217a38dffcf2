"""Chain of the demo, which starts from the trained network that comes with its preset."""

from collections.abc import Sequence

from flyweight.config.reading import load_config
from flyweight.config.settings import Config
from flyweight.config.shipped_networks import SHIPPED, shipped_network
from flyweight.pipeline.chain import CHAIN
from flyweight.pipeline.stage import Stage
from flyweight.pipeline.stages.bench import BENCH
from flyweight.pipeline.stages.comparison import COMPARISON
from flyweight.pipeline.stages.control import CONTROL
from flyweight.pipeline.stages.distill import DISTILL
from flyweight.pipeline.stages.export import EXPORT
from flyweight.pipeline.stages.layers import LAYERS
from flyweight.pipeline.stages.prune import PRUNE
from flyweight.pipeline.stages.report import REPORT
from flyweight.pipeline.stages.scan import SCAN
from flyweight.pipeline.stages.shipped import shipped_stage
from flyweight.pipeline.stages.train import TRAIN

_WITH_CONTROL = (SCAN, LAYERS, CONTROL, PRUNE, DISTILL, EXPORT, BENCH, COMPARISON, REPORT)


def demo_chain(
    name: str, overrides: Sequence[str], *, from_scratch: bool = False
) -> tuple[str, Config, tuple[Stage, ...]]:
    """Return the config of a demo and its stages.

    The preset of the demo comes with a trained network. The chain takes it instead of training, and
    fine-tunes it as a control, too. Overrides that ask for another network make the chain train.

    Args:
        name: A name or path of a config.
        overrides: As after `-o`: dotted keys, values in YAML.
        from_scratch: Train the network that comes with the preset again, as it was trained.

    Returns:
        The name of the run, the config, and the stages.

    Raises:
        ConfigError: The config or an override is invalid.
    """
    label, config = load_config(name, overrides)
    if from_scratch and label in SHIPPED:
        label, config = load_config(name, (*SHIPPED[label], *overrides))
        return label, config, (TRAIN, *_WITH_CONTROL)
    network = shipped_network(label, config)
    if network is None or from_scratch:
        return label, config, CHAIN
    return label, config, (shipped_stage(network), *_WITH_CONTROL)

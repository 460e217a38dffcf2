import inspect

from flyweight.cli.demo import demo as command
from flyweight.config.reading import load_config
from flyweight.config.shipped_networks import SHIPPED
from flyweight.pipeline.chain import CHAIN
from flyweight.pipeline.demo import demo_chain
from flyweight.pipeline.stages.train import TRAIN

NAMES = ["train", "scan", "layers", "control", "prune", "distill", "export", "bench"]
NAMES += ["comparison", "report"]


def test_the_demo_starts_from_the_network_that_comes_with_it():
    name, config, stages = demo_chain("digit_detector", ())
    assert (name, config) == load_config("digit_detector")
    assert [stage.name for stage in stages] == NAMES
    first = stages[0]
    assert first is not TRAIN
    assert "train" not in first.splits
    assert not {"train", "augment"} & {*first.settings, *first.harmless}


def test_from_scratch_it_is_trained_as_it_was():
    _, config, stages = demo_chain("digit_detector", ("train.seed=1",), from_scratch=True)
    assert stages[0] is TRAIN
    assert [stage.name for stage in stages] == NAMES
    wanted = load_config("digit_detector", (*SHIPPED["digit_detector"], "train.seed=1"))[1]
    assert config == wanted
    assert config.data.train_count > 10_000


def test_overrides_that_ask_for_another_network_train_it():
    _, config, stages = demo_chain("digit_detector", ("width=0.1",))
    assert stages == CHAIN
    assert config.width == 0.1
    _, _, kept = demo_chain("digit_detector", ("finetune.steps=40", "data.val_count=7"))
    assert [stage.name for stage in kept] == NAMES


def test_other_configs_train():
    for from_scratch in (False, True):
        name, config, stages = demo_chain("demo_digits", (), from_scratch=from_scratch)
        assert (name, config) == load_config("demo_digits")
        assert stages == CHAIN


def test_the_command_runs_a_preset_that_has_a_network():
    assert inspect.signature(command).parameters["config"].default in SHIPPED

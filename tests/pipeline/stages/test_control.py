import torch

import flyweight as fw
from flyweight.config.settings import Config
from flyweight.pipeline.inputs import open_data
from flyweight.pipeline.results import Trained
from flyweight.pipeline.stage import Inputs, complete, made_from
from flyweight.pipeline.stages.control import CONTROL
from flyweight.pipeline.stages.prune import PRUNE


def run(config: Config, dense, tmp_path):
    config = complete(config)
    results = {"train": Trained(dense, {}, 0.0)}
    inputs = Inputs("digits", open_data(config), results=results)
    workspace = CONTROL.workspace(tmp_path / "run", in_chain=True)
    return CONTROL.run(inputs, CONTROL.view(config), workspace), inputs, workspace


def test_the_dense_network_is_trained_as_fine_tuning_says(dense, config_of, tmp_path):
    found, inputs, workspace = run(config_of("finetune.evaluate_every=null"), dense, tmp_path)
    assert found.checkpoint == tmp_path / "run/control/best_model.safetensors"
    after, before = (fw.load(path).state_dict() for path in (found.checkpoint, dense))
    assert after.keys() == before.keys()
    assert not all(torch.equal(after[name], before[name]) for name in before)
    assert (workspace.folder / "logs/train.csv").read_text().count("\n") == 1 + 1  # One of 2 steps.
    assert "map_50" in found.metrics
    again = CONTROL.read(inputs, None, workspace)
    assert again.checkpoint == found.checkpoint


def test_it_depends_on_all_of_fine_tuning_and_not_on_the_cut(config_of, tmp_path):
    def needs(*overrides):
        config = complete(config_of(*overrides))
        inputs = Inputs("digits", open_data(config))
        return made_from(CONTROL, config, inputs, tmp_path, {"train": {"weights": "w"}})

    first = needs()
    assert first.values["weights of train"] == "w"
    tuned = {name for name in first.values if name.startswith("finetune.")}
    config = complete(config_of())
    pruned = made_from(PRUNE, config, Inputs("digits", open_data(config)), tmp_path)
    assert tuned == {name for name in pruned.values if name.startswith("finetune.")}
    assert needs("finetune.steps=5") != first
    assert needs("prune.criterion=l2_norm", "finetune.log_every=3", "train.steps=9") == first

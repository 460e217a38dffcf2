import torch

from flyweight.graph.rules import RULES


def test_every_row_is_an_operation_of_torch_or_torchvision():
    import torchvision

    assert torchvision.__version__
    for name in RULES:
        spaces = (torch.ops.aten, torch.ops.torchvision)
        known = [space for space in spaces if hasattr(space, name) or hasattr(space, f"{name}_")]
        assert known, name


def test_every_rule_says_what_it_does():
    for name, rule in RULES.items():
        assert rule.__doc__, name

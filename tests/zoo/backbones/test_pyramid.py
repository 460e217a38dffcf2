import torch
from torchvision.ops import FeaturePyramidNetwork

from flyweight.zoo.backbones.pyramid import FeaturePyramid


def test_it_is_torchvisions_with_two_levels_more():
    torch.manual_seed(0)
    ours = FeaturePyramid((4, 6, 8), 5, first_level=2, last_level=6)
    theirs = FeaturePyramidNetwork([4, 6, 8], 5)
    for place, level in enumerate(("2", "3", "4")):
        theirs.inner_blocks[place][0].load_state_dict(ours.lateral[level].state_dict())
        theirs.layer_blocks[place][0].load_state_dict(ours.output[level].state_dict())
    maps = [
        torch.randn(1, width, 32 >> place, 32 >> place) for place, width in enumerate((4, 6, 8))
    ]
    found = ours(maps)
    wanted = theirs({str(place): one for place, one in enumerate(maps)})
    for place in range(3):
        torch.testing.assert_close(found[place], wanted[str(place)])
    fifth = torch.nn.functional.conv2d(maps[-1], *ours.extra["5"].parameters(), 2, 1)
    torch.testing.assert_close(found[3], fifth)
    sixth = torch.nn.functional.conv2d(fifth.relu(), *ours.extra["6"].parameters(), 2, 1)
    torch.testing.assert_close(found[4], sixth)
    assert [one.shape[-1] for one in found] == [32, 16, 8, 4, 2]

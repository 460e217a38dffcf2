"""The YOLOv3 rows, by the originals' exact figures.

The figures are those of section 4 of the cost accounting and of sections 4.2 and 8.3 of the
originals' fact sheet. MobileNetV1's plans are in tests/pruning/test_plans.py.
"""

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from tests.originals import HEAD, RECIPES

from flyweight import zoo
from flyweight.graph import trace
from flyweight.pruning import plan
from flyweight.zoo.detectors.yolo_models import ROWS, yolov3_mobilenet_v1

SIDES = (320, 416, 608)


@dataclass(frozen=True)
class Figures:
    """Of one network: values with and without statistics, GMACs at SIDES, MACs without a size."""

    values: int
    params: int
    giga: tuple[float, ...]
    unknown: int


DENSE = {
    ("yolov3_mobilenet_v3", 80): Figures(
        23_646_099, 23_606_691, (5.2771, 8.9173, 19.0464), 23_561_448
    ),
    ("yolov3_r34", 80): Figures(42_343_101, 42_309_053, (12.4036, 20.9621, 44.7770), 42_274_240),
    ("yolov3_r50vd_dcn", 80): Figures(
        46_023_086, 45_952_942, (14.0048, 23.6681, 50.5573), 38_804_064
    ),
}
VALUES_OF_VOC = {
    "yolov3_mobilenet_v3": 23_322_999,
    "yolov3_r34": 42_020_001,
    "yolov3_r50vd_dcn": 45_699_986,
}
# Values, GMACs at SIDES, MACs at an unknown size.
PRUNED = {
    ("yolov3_r50vd_dcn", "sensity"): (38_873_523, (11.8698, 20.0600, 42.8501), 31_661_405),
    ("yolov3_r50vd_dcn", "r578"): (29_050_193, (9.6252, 16.2666, 34.7470), 21_850_515),
    ("yolov3_mobilenet_v3", "75/87.5"): (4_243_635, (0.6953, 1.1740, 2.5061), None),
}


def traced(name, classes, side):
    with torch.device("meta"):
        model = zoo.create(name, num_classes=classes)
    return trace(model, (torch.zeros(1, 3, side, side, device="meta"),))


graph_of = cache(traced)


def recipe(graph, name):
    return plan(graph, dict(zip(HEAD, RECIPES[name], strict=True)), "first")


def without_deformable(graph, made=None):
    """MACs as the originals counted them when they knew the size: no deformable convolution."""
    kept = {name: group.size for name, group in graph.groups.items()}
    kept |= {name: len(keep) for name, keep in made.keep.items()} if made else {}
    return sum(op.macs(kept, "real") for op in graph.costs.ops if op.paddle)


def disk_usage(graph, made=None):
    """Bytes of one file per variable in blocks of 4 KiB: how the originals took a model's size."""
    kept = {name: group.size for name, group in graph.groups.items()}
    kept |= {name: len(keep) for name, keep in made.keep.items()} if made else {}
    total = 0
    for tensor in graph.costs.tensors:
        if tensor.floating:
            dims = [axis.under(kept) for axis in tensor.axes]
            header = 22 + sum(1 + len(f"{size:b}") // 7 + 1 for size in dims)
            total += -(-(header + 4 * tensor.numel(kept)) // 4096) * 4096
    return total


def test_rows_are_named_after_their_builders():
    assert [row.name for row in ROWS] == [row.build.__name__ for row in ROWS]


@pytest.mark.parametrize(("name", "classes"), DENSE)
def test_dense_figures_are_the_originals(name, classes):
    figures = DENSE[name, classes]
    costs = [graph_of(name, classes, side).cost() for side in SIDES]
    assert {cost.values for cost in costs} == {figures.values}
    assert {cost.params for cost in costs} == {figures.params}
    assert tuple(round(cost.macs / 1e9, 4) for cost in costs) == figures.giga
    assert graph_of(name, classes, 320).cost("paddle").macs == figures.unknown


@pytest.mark.parametrize("name", VALUES_OF_VOC)
def test_voc_heads_have_the_originals_values(name):
    with torch.device("meta"):
        state = zoo.create(name, num_classes=20).state_dict()
    values = [value for key, value in state.items() if not key.endswith("num_batches_tracked")]
    assert sum(value.numel() for value in values) == VALUES_OF_VOC[name]


@pytest.mark.parametrize(("name", "strategy"), PRUNED)
def test_pruned_figures_are_the_originals(name, strategy):
    values, giga, unknown = PRUNED[name, strategy]
    made = recipe(graph_of(name, 80, 320), strategy)
    prices = []
    for side in SIDES:
        graph = graph_of(name, 80, side)
        prices.append(recipe(graph, strategy).cost(graph))
    assert {price.values for price in prices} == {values}
    assert tuple(round(price.macs / 1e9, 4) for price in prices) == giga
    if unknown is not None:
        assert made.cost(graph_of(name, 80, 320), "paddle").macs == unknown


@pytest.mark.parametrize(
    ("strategy", "unknown", "without", "true"),
    [("sensity", 18.4070, 16.0560, 15.2445), ("r578", 43.6901, 32.9366, 31.2720)],
)
def test_percentages_of_the_deformable_detector(strategy, unknown, without, true):
    graph = graph_of("yolov3_r50vd_dcn", 80, 608)
    made = recipe(graph, strategy)

    def saved(before, after):
        return round(100 * (1 - after / before), 4)

    assert saved(graph.cost("paddle").macs, made.cost(graph, "paddle").macs) == unknown
    assert saved(without_deformable(graph), without_deformable(graph, made)) == without
    assert saved(graph.cost().macs, made.cost(graph).macs) == true


def test_binary_giga_macs_of_the_deformable_detector():
    graph = graph_of("yolov3_r50vd_dcn", 80, 608)
    assert round(without_deformable(graph) / 2**30, 4) == 44.7055
    found = [without_deformable(graph, recipe(graph, name)) for name in ("sensity", "r578")]
    assert [round(macs / 2**30, 4) for macs in found] == [37.5276, 29.9810]


def test_the_mobile_detectors_reduction():
    graph = graph_of("yolov3_mobilenet_v3", 80, 320)
    made = recipe(graph, "75/87.5")
    before, after = graph.cost(), made.cost(graph)
    assert (round(before.macs / 2**30, 4), round(after.macs / 2**30, 4)) == (4.9147, 0.6475)
    # The original counted a dead convolution too: 86.57.
    assert round(100 * (1 - after.macs / before.macs), 4) == 86.8243
    assert round(100 * (1 - after.values / before.values), 4) == 82.0536


@pytest.mark.parametrize(("strategy", "percent"), [("sensity", 16.83), ("r578", 34.04)])
def test_percentages_of_resnet_34(strategy, percent):
    graph = graph_of("yolov3_r34", 80, 608)
    made = recipe(graph, strategy)
    assert round(100 * (1 - made.cost(graph).macs / graph.cost().macs), 2) == percent
    assert round(graph.cost().macs / 2**30, 2) == 41.70


@pytest.mark.parametrize(
    ("name", "classes", "megabytes"),
    [
        ("yolov3_mobilenet_v1", 80, (94.59, 67.59, 31.29)),
        ("yolov3_mobilenet_v1", 20, (93.36, 66.52, 30.80)),
        ("yolov3_r50vd_dcn", 80, (176.80, 149.47, 112.06)),
    ],
)
def test_sizes_on_disk_are_the_originals(name, classes, megabytes):
    graph = graph_of(name, classes, 320)
    plans = [None, recipe(graph, "sensity"), recipe(graph, "r578")]
    found = tuple(round(disk_usage(graph, made) / 2**20, 2) for made in plans)
    assert found == megabytes


@pytest.mark.parametrize("name", [row.name for row in ROWS])
def test_width_narrows_backbone_and_head(name):
    wide, narrow = (zoo_shapes(name, width) for width in (1.0, 0.25))
    assert wide.keys() == narrow.keys()
    assert narrow["yolo_block.0.0.0.conv.weight"][0] == 128
    sizes = [sum(torch.Size(shape).numel() for shape in net.values()) for net in (narrow, wide)]
    assert sizes[0] < sizes[1] / 10


def zoo_shapes(name, width):
    with torch.device("meta"):
        state = zoo.create(name, width=width).state_dict()
    return {key: value.shape for key, value in state.items()}


@pytest.mark.parametrize("width", [0.25, 0.5])
def test_mobilenet_v1_scales_evenly(width):
    with torch.device("meta"):
        model = yolov3_mobilenet_v1(num_classes=3, width=width)
    assert model.get_parameter("backbone.conv6.sep.conv.weight").shape[0] == 1024 * width
    assert model.get_parameter("yolo_block.0.0.0.conv.weight").shape[0] == 512 * width


@pytest.mark.parametrize("name", ["yolov3_mobilenet_v3", "yolov3_r34"])
def test_everything_but_the_outputs_is_cut_exactly(cut_in_half, name):
    torch.manual_seed(0)
    cut_in_half(zoo.create(name, num_classes=2, width=0.125), side=64)

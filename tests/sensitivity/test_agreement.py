import pytest
import torch
from scipy.special import rel_entr, softmax
from torch import nn

import flyweight as fw
from flyweight.errors import PlanError
from flyweight.pruning import plan, prune
from flyweight.sensitivity import scan
from flyweight.sensitivity.agreement import Agreement


def judged(kind, whole, cut):
    evaluator = Agreement(kind)
    evaluator.begin(whole)
    return evaluator.decode(cut, None)


def test_kl_is_that_of_scipy():
    torch.manual_seed(0)
    whole, cut = torch.randn(3, 5), torch.randn(3, 5)
    p, q = softmax(whole.double().numpy(), 1), softmax(cut.double().numpy(), 1)
    expected = torch.exp(-torch.from_numpy(rel_entr(p, q).sum(1)))
    torch.testing.assert_close(judged("kl", whole, cut), expected)
    maps = judged(
        "kl", whole.reshape(3, 5, 1).expand(3, 5, 4), cut.reshape(3, 5, 1).expand(3, 5, 4)
    )
    torch.testing.assert_close(maps, expected)


def test_feature_error_is_relative_and_averaged_over_outputs():
    whole = [torch.full((2, 3), 2.0), torch.ones(2, 1, 2)]
    cut = [torch.full((2, 3), 1.0), torch.ones(2, 1, 2)]
    assert judged("feature_error", whole, cut).tolist() == [1 - 0.25 / 2] * 2
    far = [torch.full((2, 3), 50.0), torch.ones(2, 1, 2)]
    assert judged("feature_error", whole, far).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("kind", ["kl", "feature_error"])
def test_the_same_outputs_agree(kind):
    outputs = {"a": torch.randn(2, 4), "count": torch.tensor([1, 2])}
    assert judged(kind, outputs, outputs).tolist() == [1.0, 1.0]


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(PlanError, match=r"one of kl, feature_error\. Received 'mse'"):
        Agreement("mse")
    with pytest.raises(PlanError, match="outputs of the same shapes"):
        judged("feature_error", torch.ones(2, 3), torch.ones(1, 3))
    with pytest.raises(PlanError, match="outputs of the same shapes"):
        judged("kl", torch.tensor([1, 2]), torch.tensor([1, 2]))
    with pytest.raises(PlanError, match="scores of classes on axis 1"):
        judged("kl", torch.ones(2), torch.ones(2))


@pytest.mark.parametrize("kind", ["kl", "feature_error"])
def test_a_scan_without_labels_is_that_of_every_pruned_network(kind):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4)
    ).double()
    model.eval()
    data = [torch.randn(2, 3, 2, 2, dtype=torch.float64) for _ in range(3)]
    graph = fw.trace(model, (data[0],))
    found = scan(graph, model, data, kind, ratios=(0.25, 0.5))
    assert found.metric == "agreement"
    assert found.baseline == 1
    for layer, points in found.curves.items():
        for point in points:
            small = prune(model, plan(graph, {layer: point.ratio}))
            with torch.no_grad():
                rows = [judged(kind, model(x), small(x)) for x in data]
            assert point.value == pytest.approx(float(torch.cat(rows).mean()), rel=1e-9)
            assert point.value < 1

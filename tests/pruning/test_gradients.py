"""Taylor scores against gradients taken by hand, on models that must stay as they are."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from flyweight.errors import PlanError
from flyweight.graph import trace
from flyweight.pruning import Taylor, plan, prune, taylor


def loss(model, batch):
    images, labels = batch
    return nn.functional.cross_entropy(model(images), labels)


def batches_of(count, size=3):
    torch.manual_seed(count)
    return [(torch.randn(size, 3, 6, 6), torch.randint(2, (size,))) for _ in range(count)]


def by_hand(model, batches, power=2):
    """Accumulate |w * g| ** power with plain backward calls on a copy."""
    twin = copy.deepcopy(model).eval()
    sums = {name: np.zeros(tuple(p.shape)) for name, p in twin.named_parameters()}
    for batch in batches:
        twin.zero_grad()
        loss(twin, batch).backward()
        for name, weight in twin.named_parameters():
            product = weight.detach().double().numpy() * weight.grad.double().numpy()
            sums[name] += np.abs(product) ** power
    return sums


@pytest.mark.parametrize("power", [1, 2])
def test_scores_are_sums_over_the_filters_of_weight_times_gradient(model, graph, power):
    batches = batches_of(3)
    criterion = taylor(model, batches, loss, power=power)
    sums = by_hand(model, batches, power)
    assert criterion.batches == 3
    body = criterion(graph.groups["body.weight"], graph.tensors)
    np.testing.assert_allclose(body, sums["body.weight"].sum((1, 2, 3)), rtol=1e-5)
    # Coupled layers are added in the loss's own unit, not divided by their mean.
    both = sums["stem.weight"].sum((1, 2, 3)) + sums["back.weight"].sum((1, 2, 3))
    stem = criterion(graph.groups["stem.weight"], graph.tensors)
    np.testing.assert_allclose(stem, both, rtol=1e-5)
    assert criterion.sums["stem.weight"].dtype == torch.float64


def test_the_score_predicts_what_one_weight_costs(model):
    """The first order term is the change of the loss when a weight shrinks a little."""
    batch = batches_of(1)[0]
    model.double().eval()
    batch = (batch[0].double(), batch[1])
    found = taylor(model, [batch], loss).sums["body.weight"].sqrt()
    before = loss(model, batch).item()
    step = 1e-6
    with torch.no_grad():
        model.body.weight[2, 1] *= 1 - step
    change = abs(loss(model, batch).item() - before) / step
    assert change == pytest.approx(found[2, 1].item(), rel=1e-3)


def test_a_useless_channel_leaves_first():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 4), nn.Flatten())
    with torch.no_grad():
        model[0].weight[4] *= 100  # large, which a norm would keep
        model[2].weight[:, 4] = 0  # and read by nobody
    graph = trace(model, (torch.rand(1, 3, 6, 6),))
    made = plan(graph, {"0.weight": 0.16}, taylor(model, batches_of(2), loss))
    assert made.keep["0.weight"] == (0, 1, 2, 3, 5)
    assert made.criterion == "taylor"
    assert 4 in plan(graph, {"0.weight": 0.16}, "l1_norm").keep["0.weight"]


def test_the_model_stays_as_it_is(model):
    model.train()
    model.norm.eval()
    model.stem.weight.requires_grad_(False)
    model.body.weight.grad = torch.ones_like(model.body.weight)
    before = copy.deepcopy(model.state_dict())
    flags = [module.training for module in model.modules()]
    criterion = taylor(model, batches_of(2), loss)
    assert [module.training for module in model.modules()] == flags
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert not model.stem.weight.requires_grad
    assert model.back.weight.grad is None
    assert model.body.weight.grad.eq(1).all()
    # A frozen layer is judged like any other.
    assert criterion.sums["stem.weight"].sum() > 0


def test_statistics_are_those_of_evaluation(model):
    batches = batches_of(1)
    one = taylor(model.train(), batches, loss).sums
    other = taylor(model.eval(), batches, loss).sums
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_it_works_where_gradients_are_switched_off(model):
    batches = batches_of(1)
    expected = taylor(model, batches, loss).sums["stem.weight"]
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found = taylor(model, batches, loss).sums["stem.weight"]
        torch.testing.assert_close(found, expected)


def test_batches_of_any_form_are_moved_to_the_model(model):
    images, labels = batches_of(1)[0]

    class Batch:
        def __init__(self, images):
            self.images, self.asked = images, None

        def to(self, device):
            moved = Batch(self.images)
            moved.asked = device
            return moved

    def of_batch(model, batch):
        assert batch.asked == torch.device("cpu")
        return {"loss": model(batch.images).square().mean(), "other": None}

    def of_mapping(model, batch):
        assert batch["name"] == "x"
        return loss(model, (batch["pair"][0], batch["pair"][1]))

    assert taylor(model, [Batch(images)], of_batch).batches == 1
    found = taylor(model, [{"pair": [images, labels], "name": "x"}], of_mapping)
    expected = taylor(model, [(images, labels)], loss)
    assert torch.equal(found.sums["body.weight"], expected.sums["body.weight"])


def test_progress_is_told(model, recorded_progress):
    taylor(model, batches_of(2), loss, progress=recorded_progress)
    taylor(model, iter(batches_of(1)), loss, progress=recorded_progress)
    assert recorded_progress.events == [
        ("start", "gradients", 2, 0),
        ("update", "gradients", 1, {}),
        ("update", "gradients", 2, {}),
        ("finish", "gradients"),
        ("start", "gradients", None, 0),
        ("update", "gradients", 1, {}),
        ("finish", "gradients"),
    ]


def test_a_shared_layer_is_known_by_its_first_name():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 1)
            self.one = nn.Conv2d(4, 4, 1)
            self.two = nn.Conv2d(4, 4, 1)
            self.two.weight = self.one.weight
            self.head = nn.Conv2d(4, 2, 6)

        def forward(self, x):
            return self.head(self.two(self.one(self.stem(x)).relu())).flatten(1)

    model = Twice()
    graph = trace(model, (torch.rand(1, 3, 6, 6),))
    criterion = taylor(model, batches_of(1), loss)
    assert set(criterion.sums) == set(graph.tensors)
    assert len(plan(graph, 0.5, criterion).groups) == len(graph.prunable())


def test_grouped_and_transposed_layers_sum_over_places():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.ConvTranspose2d(3, 4, 1), nn.Conv2d(4, 8, 3, groups=2), nn.Conv2d(8, 2, 4), nn.Flatten()
    )
    graph = trace(model, (torch.rand(1, 3, 6, 6),))
    batches = batches_of(2)
    criterion, sums = taylor(model, batches, loss), by_hand(model, batches)
    grouped = sums["1.weight"].sum((1, 2, 3))
    found = criterion(graph.groups["1.weight"], graph.tensors)
    np.testing.assert_allclose(found, grouped[:4] + grouped[4:], rtol=1e-5)
    transposed = sums["0.weight"].sum((0, 2, 3))
    found = criterion(graph.groups["0.weight"], graph.tensors)
    np.testing.assert_allclose(found, transposed[:2] + transposed[2:], rtol=1e-5)


def refusal(*arguments, **options):
    with pytest.raises(PlanError) as caught:
        taylor(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("batches", [[], iter(())])
def test_no_batches_are_refused(model, batches):
    assert "Received no batches" in refusal(model, batches, loss)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (lambda model, batch: loss(model, batch) * float("nan"), "Received nan for batch 1"),
        (lambda model, batch: loss(model, batch) / 0.0, "Received inf for batch 1"),
        (lambda model, batch: model(batch[0]), "Received shape (3, 2) for batch 1"),
        (lambda model, batch: {"total": loss(model, batch)}, "Received dict for batch 1"),
        (lambda model, batch: loss(model, batch).item(), "Received float for batch 1"),
        (lambda model, batch: loss(model, batch).detach(), "Received one without gradient"),
    ],
)
def test_a_loss_that_cannot_be_used(model, value, said):
    assert said in refusal(model, batches_of(1), value)


def test_the_batch_of_a_broken_loss_is_named(model):
    batches = batches_of(3)
    batches[1][0].fill_(float("nan"))
    assert "for batch 2. Check this batch" in refusal(model, batches, loss)


def test_a_gradient_that_is_not_finite_names_its_layer(model):
    def steep(model, batch):
        return (
            loss(model, batch) + (model.back.weight - model.back.weight.detach()).abs().sqrt().sum()
        )

    assert "'back.weight' in batch 1" in refusal(model, batches_of(1), steep)


def test_a_power_that_cannot_be_meant(model):
    assert "Received 3" in refusal(model, batches_of(1), loss, power=3)


def test_a_criterion_of_another_model_is_refused(model, graph, images):
    criterion = taylor(model, batches_of(1), loss)
    small = prune(model, plan(graph, 0.5, criterion))
    with pytest.raises(PlanError, match=r"for which the criterion has shape \(6, 3, 3, 3\)"):
        plan(trace(small, images), 0.3, criterion)
    with pytest.raises(PlanError, match="has no such parameter"):
        plan(graph, 0.5, Taylor({}, 1))

import copy
from functools import partial

import pytest
import torch
from tests.quantization.conftest import Residual, trained_like
from torch import nn

import flyweight as fw
from flyweight.errors import PlanError
from flyweight.quantization.learned_steps import settled, trainable
from flyweight.quantization.network import plan_of
from flyweight.quantization.quantization_plan import LearnedSteps, QuantizationPlan

METHODS = ["lsq", "pact", "fixed"]
SAFE = fw.QuantConfig(weight_bits=7)


def batch(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(6, 3, 16, 16, generator=generator), torch.randint(
        0, 4, (6,), generator=generator
    )


def train(model, steps, optimizer=None, start=0):
    model.train()
    optimizer = optimizer or torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    losses = []
    for step in range(start, start + steps):
        images, labels = batch(step % 2)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    model.eval()
    return losses


def outputs(model, images):
    with torch.no_grad():
        return model.eval()(images)


@pytest.mark.parametrize("hold_after", [0, 3])
@pytest.mark.parametrize("method", METHODS)
def test_a_settled_network_computes_what_the_trained_one_does(residual, images, method, hold_after):
    model = trainable(fw.quantize(residual, images, SAFE), LearnedSteps(method, hold_after))
    losses = train(model, 12)
    assert min(losses[6:]) < losses[0]
    fixed = settled(model)
    assert torch.equal(outputs(fixed, images), outputs(model, images))
    assert plan_of(fixed).learned is None
    assert not any("factor" in name for name, _ in fixed.named_parameters())
    moved = [
        name for name, grid in plan_of(fixed).grids.items() if grid != plan_of(model).grids[name]
    ]
    assert bool(moved) == (method != "fixed")


@pytest.mark.parametrize("method", METHODS)
def test_the_file_of_a_trained_network_computes_the_same(tmp_path, residual, images, method):
    model = trainable(fw.quantize(residual, images, SAFE), LearnedSteps(method, hold_after=3))
    train(model, 6)
    example, more = (images[:1],), [(images[1:2],)]
    trained = fw.export(model, tmp_path / "a.onnx", example=example, compare_on=more)
    fixed = fw.export(settled(model), tmp_path / "b.onnx", example=example, compare_on=more)
    assert max(trained.max_error.values()) < 0.03
    assert max(fixed.max_error.values()) < 0.03


@pytest.mark.parametrize("method", ["lsq", "pact"])
def test_training_resumes_with_equal_bits(tmp_path, images, method):
    torch.manual_seed(0)
    float_model = trained_like(fw.create("torchvision/mobilenet_v2", num_classes=4), 32)
    x = torch.randn(4, 3, 32, 32)
    model = trainable(fw.quantize(float_model, x), LearnedSteps(method, hold_after=2))

    def step(one, optimizer, number):
        one.train()
        torch.manual_seed(number)
        optimizer.zero_grad()
        one(x).square().mean().backward()
        optimizer.step()

    first = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    step(model, first, 0)
    fw.save(model, tmp_path / "half.safetensors")
    other = fw.load(tmp_path / "half.safetensors")
    second = torch.optim.SGD(other.parameters(), 0.01, momentum=0.9)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for number in (1, 2, 3):
        step(model, first, number)
        step(other, second, number)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    fw.save(settled(model), tmp_path / "end.safetensors")
    loaded = fw.load(tmp_path / "end.safetensors")
    assert torch.equal(outputs(loaded, x), outputs(model, x))


@pytest.mark.parametrize("method", METHODS)
def test_activations_in_place_are_trained_alike(images, method):
    found = []
    for inplace in (False, True):
        torch.manual_seed(0)
        model = trained_like(Residual(partial(nn.LeakyReLU, inplace=inplace)))
        model = trainable(fw.quantize(model, images), LearnedSteps(method))
        found.append(train(model, 4))
    assert found[0] == found[1]


def test_what_is_trained(residual, images):
    quantized = fw.quantize(residual, images)
    named = dict(quantized.named_parameters())
    lsq = {name for name, _ in trainable(quantized).named_parameters() if name not in named}
    assert "quantizers.stem/2/hardtanh.factor" in lsq
    # A range that begins at zero keeps its zero point.
    assert "quantizers.stem/2/hardtanh.shift" not in lsq
    assert "quantizers.add.shift" in lsq
    assert "weight_quantizers.head/linear.factor" in lsq
    pact = trainable(quantized, LearnedSteps("pact"))
    kinds = {name.rsplit(".", 1)[1] for name, _ in pact.named_parameters() if name not in named}
    assert kinds == {"factor"}
    assert not hasattr(pact, "weight_quantizers")
    assert plan_of(quantized).learned is None


def test_steps_stay_within_bounds_and_survive_a_broken_batch(residual, images):
    model = trainable(fw.quantize(residual, images))
    before = outputs(model, images)
    (model.train()(images * float("nan"))).sum().backward()
    gradients = [p.grad for name, p in model.named_parameters() if name.endswith("factor")]
    assert all(torch.isfinite(one).all() for one in gradients)
    quantizer = model.quantizers["stem/2/hardtanh"]
    start = quantizer.grid().scale
    with torch.no_grad():
        assert torch.equal(outputs(model, images), before)
        quantizer.factor.fill_(-3.0)
        assert quantizer.grid().scale == pytest.approx(start / 16, rel=1e-6)
        quantizer.factor.fill_(100.0)
        # Above 6 / 255 the clipping of a ReLU6 would run in float.
        assert quantizer.grid().scale <= 6 / 255
        quantizer.factor.fill_(float("nan"))
        assert quantizer.grid().scale == pytest.approx(start)


def test_held_integers_stay_while_steps_are_trained(residual, images):
    model = trainable(fw.quantize(residual, images), LearnedSteps(hold_after=4))
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    train(model, 4, optimizer)
    own = model.weight_quantizers["stem/0/conv2d"]
    integers, factor = own.integers.clone(), own.factor.clone()
    train(model, 3, optimizer, start=4)
    assert torch.equal(own.integers, integers)
    assert not torch.equal(own.factor, factor)
    fixed = settled(model)
    norm = fixed.stem[1]
    folded = (
        fixed.stem[0].weight
        * (norm.weight * torch.rsqrt(norm.running_var + norm.eps))[:, None, None, None]
    )
    scales = fixed.weight_quantizers["stem/0/conv2d"].scales[:, None, None, None]
    assert torch.equal((folded / scales).round(), integers.round())


def test_a_weight_that_moved_is_held_where_it_is(residual, images):
    model = trainable(fw.quantize(residual, images), LearnedSteps("fixed", hold_after=10))
    weight, step = model.narrow.weight, model.weight_quantizers["narrow/conv2d"].scales[0]
    with torch.no_grad():
        for number in range(10):
            weight[0, 0] = step * (4.2 + 5 * number)
            model.train()(images[:1])
    # Its average is 27; of the integers around 49.2, that is nearer to 49.
    assert model.weight_quantizers["narrow/conv2d"].integers[0, 0].item() == 49


def test_the_gain_of_a_normalisation_is_held_with_the_integers(residual, images):
    """A large mean would multiply every change of the gain in the bias."""
    with torch.no_grad():
        residual.stem[1].running_mean += 50
        residual.stem[1].bias += 50 * residual.stem[1].weight / residual.stem[1].running_var.sqrt()
    said = []  # The mean is not that of the images, and that is said.
    quantized = fw.quantize(residual, images, say=said.append)
    assert len(said) == 1
    model = trainable(quantized, LearnedSteps(hold_after=2))
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    train(model, 2, optimizer)
    gain = model.weight_quantizers["stem/0/conv2d"].gain.clone()
    losses = train(model, 6, optimizer, start=2)
    assert max(losses) < 2 * losses[0]
    assert torch.equal(model.weight_quantizers["stem/0/conv2d"].gain, gain)
    fixed = settled(model)
    assert torch.equal(fixed.stem[1].weight, gain)
    assert torch.equal(outputs(fixed, images), outputs(model, images))


def test_an_oscillating_weight_is_held_at_the_integer_it_had_most(residual, images):
    model = trainable(fw.quantize(residual, images), LearnedSteps("fixed", hold_after=80))
    own = model.weight_quantizers["narrow/conv2d"]
    weight, step = model.narrow.weight, own.scales[0]
    with torch.no_grad():
        for number in range(80):
            weight[0, 0] = step * (10.4 if number % 4 else 10.6)
            model.train()(images[:1])
        weight[0, 0] = step * 10.6
    assert own.integers[0, 0].item() == 10
    assert settled(model).narrow.weight[0, 0].item() == pytest.approx(float(step) * 10)


def test_modules_keep_their_settings_and_statistics(images):
    torch.manual_seed(0)
    model = Residual()
    model.head = nn.Sequential(nn.Dropout(0.3), model.head)
    model.stem[1].momentum = 0.03
    model = trained_like(model)
    ours = trainable(fw.quantize(model, images)).train()
    before = copy.deepcopy(ours.state_dict())
    ours(images)
    assert ours.stem[1].momentum == 0.03
    assert ours.head[0].p == 0.3
    assert ours.head[0].training
    assert torch.equal(ours.stem[1].running_mean, before["stem.1.running_mean"])


def test_mistakes_are_named(residual, images):
    with pytest.raises(PlanError, match="must be quantized before"):
        trainable(residual)
    with pytest.raises(PlanError, match="must be quantized before"):
        settled(residual)
    with pytest.raises(PlanError, match="'magic'"):
        LearnedSteps("magic")
    with pytest.raises(PlanError, match="0 or more"):
        LearnedSteps(hold_after=-1)


def test_the_plan_says_how_it_is_trained(residual, images):
    plan = plan_of(trainable(fw.quantize(residual, images), LearnedSteps("pact", 7)))
    assert plan.learned == LearnedSteps("pact", 7)
    assert QuantizationPlan.from_json(plan.to_json()) == plan


def test_a_trained_network_is_trained_again_from_where_it_is(residual, images):
    model = trainable(fw.quantize(residual, images))
    train(model, 4)
    again = trainable(settled(model), LearnedSteps("fixed"))
    assert torch.equal(outputs(again, images), outputs(model, images))
    assert torch.equal(outputs(trainable(model), images), outputs(model, images))

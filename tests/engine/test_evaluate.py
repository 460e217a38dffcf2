import pytest
import torch
from torch import nn

from flyweight.engine.evaluate import evaluate, merge_states, predict_batches


def test_numbers_are_those_of_one_big_batch(toy):
    model = toy.toy_model()
    batch = toy.toy_batch(*range(1000, 1000 + toy.IMAGES))
    model.eval()
    with torch.no_grad():
        errors = (model(batch.images) - batch.images.mean(1, keepdim=True)).square()
    found = evaluate(model, toy.ToyTask(), toy.val_batches(0, 1))
    assert found["quality"] == pytest.approx(-float(errors.mean()), rel=1e-5)
    assert found["pictures"] == toy.IMAGES


def test_shares_merge_to_the_same_numbers(toy):
    model, task = toy.toy_model(), toy.ToyTask()
    states = []
    for rank in range(3):
        metric = task.metric()
        for batch, predictions in predict_batches(model, task, toy.val_batches(rank, 3, size=1)):
            metric.update(predictions, batch)
        states.append(metric.state())
    alone = evaluate(model, task, toy.val_batches(0, 1, size=1))
    assert merge_states(task.metric, states) == alone


def test_every_module_comes_back_in_its_own_mode(toy):
    model = toy.toy_model().train()
    model[1].eval()
    before = [module.training for module in model.modules()]
    evaluate(model, toy.ToyTask(), toy.val_batches(0, 1))
    assert [module.training for module in model.modules()] == before
    running = predict_batches(model, toy.ToyTask(), toy.val_batches(0, 1))
    next(running)
    assert not model.training
    running.close()
    assert [module.training for module in model.modules()] == before


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 2e-2), ("16", 2e-3)])
def test_lower_precision_is_near_and_not_the_same(toy, precision, tolerance):
    model, task = toy.toy_model(), toy.ToyTask()
    exact = evaluate(model, task, toy.val_batches(0, 1))["quality"]
    near = evaluate(model, task, toy.val_batches(0, 1), precision=precision)["quality"]
    assert near != exact
    assert near == pytest.approx(exact, rel=tolerance)


def test_outputs_of_any_shape_reach_decode_in_float32(toy):
    class Many(nn.Module):
        def forward(self, images):
            low = images.bfloat16()
            return {"maps": (low, [low]), "count": torch.tensor(3)}

    class Task(toy.ToyTask):
        def decode(self, outputs, batch):
            return outputs

    for _, outputs in predict_batches(Many(), Task(), [toy.toy_batch(1)]):
        assert outputs["maps"][0].dtype == outputs["maps"][1][0].dtype == torch.float32
        assert outputs["count"].dtype == torch.int64


def test_nothing_gives_the_numbers_of_nothing(toy):
    assert evaluate(toy.toy_model(), toy.ToyTask(), []) == {}


def test_the_consumer_may_use_gradients_between_batches(toy):
    for _ in predict_batches(toy.toy_model(), toy.ToyTask(), toy.val_batches(0, 1)):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()

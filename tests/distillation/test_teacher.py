import pytest
import torch
from torch import nn

from flyweight.config.preprocessing import Preprocessing
from flyweight.distillation.teacher import (
    MatchedInput,
    Teacher,
    computes_bf16,
    evaluating,
    plain_copy,
    run_teacher,
)


def test_images_are_normalised_as_the_teacher_expects():
    pixels = torch.rand(2, 3, 4, 4)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    student = Preprocessing(height=4, width=4, mean=mean, std=std)
    teacher = Preprocessing(
        height=4, width=4, mean=(1, 2, 3), std=(4, 5, 6), value_range=255, channels="bgr"
    )

    def normalised(values, mean, std):
        mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (mean, std))
        return (values - mean) / std

    images = normalised(pixels, mean, std)
    wanted = normalised(255 * pixels.flip(1), (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    torch.testing.assert_close(MatchedInput(student, teacher)(images), wanted, rtol=1e-4, atol=1e-4)
    assert MatchedInput(student, student)(images) is images


def test_the_size_is_the_students_unless_it_is_to_change():
    small, large = (Preprocessing(height=side, width=side) for side in (8, 16))
    images = torch.rand(1, 3, 8, 8)
    assert MatchedInput(small, large)(images) is images
    assert MatchedInput(small, large, resizes=True)(images).shape[-2:] == (16, 16)


def test_a_teacher_runs_in_evaluation_mode_without_gradients_and_stays_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout()).train()
    model[1].eval()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    images = torch.randn(2, 3, 4, 4)
    returned = Teacher(model, precision="32").run(images)
    assert returned.is_inference()
    assert not plain_copy(returned).is_inference()
    torch.testing.assert_close(plain_copy(returned), model[1](model[0](images)).detach())
    assert [one.training for one in model] == [True, False, True]
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_precision_is_that_of_the_processor():
    model, images = nn.Conv2d(3, 4, 1), torch.randn(1, 3, 4, 4)
    assert run_teacher(model, images, "bf16").dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert run_teacher(model, images, "32").dtype == torch.float32
    halves = computes_bf16(torch.device("cpu"))
    assert (run_teacher(model, images).dtype == torch.bfloat16) == halves
    assert not computes_bf16(torch.device("meta"))


def test_modes_return_after_an_error():
    model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())

    def fail():
        with evaluating(model):
            assert not model[0].training
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [one.training for one in model] == [True, False]

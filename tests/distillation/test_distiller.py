import copy
import pickle

import pytest
import torch
from tests.distillation.networks import Classifier, Segmenter, pruned, randomised, seeded, yolo
from torch import nn

import flyweight as fw
from flyweight.distillation import crosskd, kl, l2_distill, pkd, split_distill
from flyweight.distillation.distiller import Distiller
from flyweight.distillation.strategies import STRATEGIES, Strategy, Term
from flyweight.distillation.teacher import Teacher, evaluating
from flyweight.distillation.teacher_cache import OutputCache
from flyweight.distillation.truth import Truth
from flyweight.errors import ConfigError, PlanError, TrainingError

EXAMPLE = torch.zeros(1, 3, 32, 32)
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def exact(model):
    return Teacher(model, precision="32")


def test_a_loop_needs_one_line_and_the_student_comes_closer_to_its_teacher():
    dense = randomised(seeded(Classifier))
    student = pruned(dense).train()
    distiller = Distiller(student, exact(dense), example=EXAMPLE)
    own = list(distiller.parameters())
    assert own
    optimizer = torch.optim.Adam([*student.parameters(), *own], lr=0.01)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        student(IMAGES)
        loss = distiller.loss(IMAGES)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(parameter.grad is None for parameter in dense.parameters())
    assert all(parameter.grad is not None for parameter in own)


def test_the_loss_is_of_the_preceding_run():
    dense = seeded(Classifier)
    distiller = Distiller(pruned(dense), dense, example=EXAMPLE)
    with pytest.raises(TrainingError, match="Received no run"):
        distiller.loss(IMAGES)
    student = pruned(dense)
    distiller = Distiller(student, dense, example=EXAMPLE)
    student(IMAGES)
    with pytest.raises(TrainingError, match="1 images after a run on 2"):
        distiller.loss(IMAGES[:1])
    student(IMAGES)
    distiller.loss(IMAGES)
    with pytest.raises(TrainingError, match="Received no run"):
        distiller.loss(IMAGES)
    distiller.close()
    student(IMAGES)
    with pytest.raises(TrainingError, match="Received no run"):
        distiller.loss(IMAGES)


def test_the_terms_are_the_plain_functions_of_both_networks_tensors():
    dense = randomised(seeded(Classifier))
    student = randomised(seeded(Classifier, 3), 9)
    distiller = Distiller(student, exact(dense), example=EXAMPLE)
    ours = student.eval()(IMAGES)
    found = distiller.terms(IMAGES)
    wanted = 0.5 * kl(ours, dense.eval()(IMAGES), 2.0)
    torch.testing.assert_close(found["kl"], wanted)
    features = 0.0
    with torch.no_grad():
        pairs = [(student.stem(IMAGES), dense.stem(IMAGES))]
        for layer in ("layer0", "layer1"):
            one, other = pairs[-1]
            pairs.append((getattr(student, layer)(one), getattr(dense, layer)(other)))
        features = sum(pkd(one, other) for one, other in pairs[1:])
    torch.testing.assert_close(found["pkd"], 12 * features)
    assert not list(distiller.parameters())  # Equal widths need no adaptor.
    torch.testing.assert_close(sum(found.values()), found["kl"] + found["pkd"])


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_teaches_a_pruned_detector(name):
    dense = randomised(yolo())
    student = pruned(dense, side=64).train()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    if name == "dkd":
        distiller = Distiller(student, dense, strategy=name, example=images)
        student(images)
        with pytest.raises(TrainingError, match="labels"):
            distiller.loss(images)
        return
    distiller = Distiller(student, exact(dense), strategy=name, example=images)
    outputs = student(images)
    truth = Truth(boxes=[torch.tensor([[4.0, 4.0, 40.0, 30.0]])] * 2)
    loss = distiller.loss(images, truth)
    loss.backward()
    assert torch.isfinite(loss)
    assert loss.item() > 0
    learned = [p for p in (*student.parameters(), *distiller.parameters()) if p.grad is not None]
    assert sum(parameter.grad.abs().sum().item() for parameter in learned) > 0
    assert all(parameter.grad is None for parameter in dense.parameters())
    missing = [
        n for n, p in (distiller.modules or nn.Module()).named_parameters() if p.grad is None
    ]
    assert missing == []  # A module that takes no part in the loss would stop several devices.
    if name in ("l2", "split"):
        with torch.no_grad():
            theirs = dense.eval()(images)
        plain = l2_distill(outputs, theirs) if name == "l2" else split_distill(outputs, theirs, 2)
        torch.testing.assert_close(loss, plain)


def test_crosskd_sends_the_students_features_through_the_teachers_last_layers():
    dense, student = randomised(yolo()), randomised(yolo(seed=7))
    images = torch.randn(1, 3, 64, 64)
    distiller = Distiller(student, exact(dense), strategy="crosskd", example=images)
    student.eval()(images)
    found = distiller.loss(images)
    crossed = []
    with torch.no_grad(), evaluating(dense):
        theirs = dense(images)
        for index, (block, output) in enumerate(
            zip(dense.yolo_block, dense.yolo_output, strict=True)
        ):
            features = hooked(student, f"yolo_block.{index}.2", images)
            crossed.append(output["conv"](block["tip"](features)))
    torch.testing.assert_close(found, crosskd(crossed, theirs, 2))
    found.backward()
    own = {n: p.grad for n, p in student.named_parameters() if ".tip." in n or "_output" in n}
    assert len(own) == 3 * 3 + 3 * 2
    assert all(one is None for one in own.values())  # The student's last layers learn from labels.
    assert student.yolo_block[0]["2"].conv.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in dense.parameters())


def hooked(model, path, images):
    kept = []
    handle = model.get_submodule(path).register_forward_hook(lambda *given: kept.append(given[2]))
    model(images)
    handle.remove()
    return kept[0].detach()


def test_only_the_taps_that_losses_use_are_kept_in_training():
    dense = randomised(yolo())
    student = pruned(dense, side=64)
    images = torch.randn(1, 3, 64, 64)
    for name, count in (("l2", 0), ("crosskd", 3), ("fgd", 3), ("pkd", 7)):
        distiller = Distiller(student, exact(dense), strategy=name, example=images)
        student(images)
        assert len(distiller._capture.features) == count
        distiller.close()
        assert len(distiller.similarity(student, images)) == 7


def test_a_segmenter_is_taught_by_another_size_and_width_with_a_mask():
    student, teacher = seeded(Segmenter), seeded(lambda: Segmenter(width=9), 2)
    for name in ("auto", "cwd", "mimic", "fsp"):
        distiller = Distiller(student, exact(teacher), strategy=name, example=EXAMPLE)
        student(IMAGES)
        mask = torch.zeros(2, 32, 32, dtype=torch.bool)
        mask[:, :16] = True
        half = distiller.loss(IMAGES, Truth(mask=mask))
        student(IMAGES)
        whole = distiller.loss(IMAGES)
        assert torch.isfinite(half)
        assert (half.item() == whole.item()) == (name == "fsp")
        distiller.close()


def test_several_teachers_are_averaged():
    student = seeded(Classifier)
    one, two = (exact(randomised(seeded(Classifier, seed))) for seed in (1, 2))
    values = []
    for teacher in (one, two, [one, two]):
        distiller = Distiller(student, teacher, strategy="kl", example=EXAMPLE)
        student.eval()(IMAGES)
        values.append(distiller.loss(IMAGES).item())
        distiller.close()
    assert values[2] == pytest.approx((values[0] + values[1]) / 2, rel=1e-5)


def test_a_teacher_of_another_input_size_is_compared_at_the_same_strides():
    class Larger:
        def __call__(self, images):
            return nn.functional.interpolate(images, scale_factor=2.0)

    student = seeded(Classifier)
    teacher = Teacher(seeded(lambda: Classifier(width=12, blocks=3), 2), Larger())
    distiller = Distiller(student, teacher, strategy="pkd", example=EXAMPLE)
    student(IMAGES)
    distiller.loss(IMAGES).backward()
    assert [tap.teacher.shape[-1] for tap in distiller.plans[0].taps] == [32, 16]


def test_named_taps_and_own_strategies():
    student, teacher = seeded(Classifier), seeded(Classifier, 1)
    own = Strategy("mine", (Term("l2", "features", 3.0),))
    distiller = Distiller(student, exact(teacher), ["stem"], own, example=EXAMPLE)
    student(IMAGES)
    found = distiller.loss(IMAGES)
    wanted = 3 * (student.stem(IMAGES) - teacher.stem(IMAGES)).square().mean()
    torch.testing.assert_close(found, wanted)
    with pytest.raises(PlanError, match="'stemm'"):
        Distiller(student, teacher, ["stemm"], example=EXAMPLE)


def test_what_does_not_fit_is_refused_with_the_difference():
    student = yolo()
    images = torch.zeros(1, 3, 64, 64)
    with pytest.raises(ConfigError, match="21 channels of the student and 24 of the teacher"):
        Distiller(student, yolo(classes=3), example=images)
    with pytest.raises(ConfigError, match="another module"):
        Distiller(student, student, example=images)
    with pytest.raises(ConfigError, match="Received none"):
        Distiller(student, [], example=images)
    Distiller(student, yolo(classes=3), strategy="pkd", example=images).close()


def test_similarity_is_one_for_a_copy_and_smaller_after_a_cut():
    dense = randomised(seeded(Classifier))
    twin, small = copy.deepcopy(dense), pruned(dense)
    images = torch.randn(8, 3, 32, 32)
    same = Distiller(twin, exact(dense), example=EXAMPLE).similarity(twin, images)
    cut = Distiller(small, exact(dense), example=EXAMPLE).similarity(small, images)
    assert same == pytest.approx(dict.fromkeys(same, 1.0), abs=1e-4)
    assert list(cut) == list(same)
    assert all(0 < value < 0.9999 for value in cut.values())
    watching = Distiller(small, exact(dense), example=EXAMPLE)
    watching.similarity(small, images)
    with pytest.raises(TrainingError, match="Received no run"):
        watching.loss(images)
    small(images)
    watching.loss(images)


def test_libraries_and_defaults_need_no_example():
    import torchvision

    student, teacher = torchvision.models.resnet18(), torchvision.models.mobilenet_v2()
    distiller = Distiller(student, teacher)
    images = torch.randn(2, 3, 64, 64)
    student(images)
    distiller.loss(images).backward()
    assert [tap.student.stride for tap in distiller.plans[0].taps] == [4, 8, 16, 32]


@pytest.mark.filterwarnings("ignore:Calibration has inputs")  # Statistics are random.
def test_a_quantized_student_is_taught_by_its_float_network():
    dense = randomised(seeded(Classifier)).eval()
    quantized = fw.quantize(dense, IMAGES, fw.QuantConfig(weight_bits=7))
    distiller = Distiller(quantized, exact(dense), example=EXAMPLE)
    quantized.train()(IMAGES)
    distiller.loss(IMAGES).backward()
    assert [tap.student.stride for tap in distiller.plans[0].taps] == [2, 4]
    assert quantized.stem.weight.grad.abs().sum() > 0


def test_networks_without_a_common_tap_are_compared_at_their_outputs():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3072, 8), nn.ReLU())
            self.fc = nn.Linear(8, 5)

        def forward(self, x):
            return self.fc(self.layers(x))

    student, teacher = seeded(Plain), seeded(Classifier)
    distiller = Distiller(student, teacher, example=EXAMPLE)
    student(IMAGES)
    assert list(distiller.terms(IMAGES)) == ["kl"]
    with pytest.raises(ConfigError, match="pkd must compare features"):
        Distiller(student, teacher, strategy="pkd", example=EXAMPLE)


def test_maps_with_channels_last_are_compared_with_others():
    class ChannelsLast(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.norm = nn.Conv2d(3, 24, 4, 4), nn.LayerNorm(24)
            self.head = nn.Linear(24, 5)

        def forward(self, x):
            return self.head(self.norm(self.embed(x).permute(0, 2, 3, 1)).mean(dim=(1, 2)))

    student, teacher = seeded(ChannelsLast), seeded(Classifier)
    distiller = Distiller(student, teacher, strategy="pkd", example=EXAMPLE)
    (tap,) = distiller.plans[0].taps
    assert (tap.student.layout, tap.teacher.layout, tap.student.stride) == ("last", "maps", 4)
    student(IMAGES)
    distiller.loss(IMAGES).backward()
    assert student.norm.weight.grad is not None


def test_a_distiller_can_be_sent_to_another_process():
    dense = randomised(seeded(Classifier))
    student = pruned(dense)
    distiller = Distiller(student, exact(dense), example=EXAMPLE, watch=False)
    for twin in (copy.deepcopy(distiller), pickle.loads(pickle.dumps(distiller))):
        values = []
        for one in (distiller, twin):
            with one.watching(student):
                student.eval()(IMAGES)
            values.append(one.loss(IMAGES).item())
        assert values[0] == pytest.approx(values[1])


def test_a_teacher_with_a_cache_runs_once_on_each_image(tmp_path):
    dense = randomised(seeded(Classifier))
    student = pruned(dense)
    plain = Distiller(student, exact(dense), example=EXAMPLE, watch=False)
    kept = OutputCache(tmp_path, 10**7, inputs=2, repeats=True)
    cached = Distiller(student, Teacher(dense, precision="32", cache=kept), example=EXAMPLE)
    cached.modules.load_state_dict(plain.modules.state_dict())
    (sentence,) = cached.cache_plans(IMAGES)
    # Scores of 5 classes, 8 channels of 16 x 16 and 16 of 8 x 8.
    size = 4 * (5 + 8 * 256 + 16 * 64)
    assert f"{size / 1000:.1f} kB per image, {2 * size / 1000:.1f} kB for 2 inputs" in sentence
    assert plain.cache_plans(IMAGES) == []
    with plain.watching(student.eval()):
        student(IMAGES)
    wanted = plain.loss(IMAGES)
    dense.register_forward_hook(lambda *_: runs.append(1))
    runs = []
    for _ in range(2):
        student(IMAGES)
        assert torch.equal(cached.loss(IMAGES), wanted)
    assert len(runs) == 1


def test_fitted_adaptors_start_near_the_teacher():
    dense = randomised(seeded(Classifier))
    student = pruned(dense).eval()
    torch.manual_seed(0)
    distiller = Distiller(student, exact(dense), strategy="mimic", example=EXAMPLE)

    def loss():
        student(IMAGES)
        return distiller.loss(IMAGES).item()

    drawn = loss()
    distiller.fit_adaptors_(student, IMAGES)
    assert loss() < 0.5 * drawn
    with pytest.raises(TrainingError, match="Received no run"):
        distiller.loss(IMAGES)

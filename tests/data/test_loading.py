import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from flyweight.config.data import AugmentConfig, DataConfig
from flyweight.config.preprocessing import Preprocessing
from flyweight.data.batch import Batch
from flyweight.data.layouts.digits import make_digits
from flyweight.data.layouts.voc_write import write_voc
from flyweight.data.loading import open_set, prepare, read_image, train_loader, val_loader
from flyweight.data.records import BoxSet, as_boxes
from flyweight.errors import ConfigError, DataError

SMALL = Preprocessing(height=64, width=64)
FULL = AugmentConfig(multi_scale=(64, 96), mixup_epochs=2)
DIGITS = make_digits("train", 13, size=64)


def _train(box_set=DIGITS, *, preprocessing=SMALL, augment=FULL, **options):
    arguments = {"batch_size": 3, "steps": 10, "seed": 5, **options}
    return train_loader(box_set, preprocessing=preprocessing, augment=augment, **arguments)


def _same(first: Batch, second: Batch) -> bool:
    names = ("boxes", "labels", "weights", "difficult", "crowd")
    return torch.equal(first.images, second.images) and all(
        (one.image_id, one.path, one.original_size) == (two.image_id, two.path, two.original_size)
        and all(torch.equal(getattr(one, name), getattr(two, name)) for name in names)
        for one, two in zip(first.targets, second.targets, strict=True)
    )


def _all_same(first, second) -> bool:
    return all(_same(one, two) for one, two in zip(first, second, strict=True))


@pytest.mark.parametrize("start", [1, 4, 9])
def test_resuming_gives_the_batches_of_an_uninterrupted_run(start):
    torch.manual_seed(1)
    whole = list(_train())
    torch.manual_seed(2)
    rest = list(_train(start_step=start))
    assert len(whole) == 10
    assert _all_same(whole[start:], rest)


def test_workers_change_nothing():
    assert _all_same(list(_train(steps=6)), list(_train(steps=6, num_workers=2)))


def test_devices_share_the_batch_of_one():
    whole = list(_train(batch_size=4, steps=5))
    parts = [_train(batch_size=2, steps=5, rank=rank, world_size=2) for rank in range(2)]
    for batch, *shares in zip(whole, *parts, strict=True):
        targets = tuple(target for share in shares for target in share.targets)
        assert _same(batch, Batch(torch.cat([share.images for share in shares]), targets))


def test_seed_epoch_and_index_vary_a_picture():
    batches = list(_train(batch_size=13, steps=2)) + list(_train(batch_size=13, steps=1, seed=6))
    sums = {round(float(image.sum()), 2) for batch in batches for image in batch.images}
    assert len(sums) == 39


def test_iterating_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    list(_train(steps=2))
    list(val_loader(DIGITS, preprocessing=SMALL, batch_size=5))
    assert torch.equal(torch.rand(2), expected)


def test_batches_have_the_promised_types_and_sizes():
    sides = set()
    for batch in _train(steps=16):
        assert batch.images.dtype == torch.float32
        assert batch.images.is_contiguous()
        sides.add(tuple(batch.images.shape[-2:]))
        for target in batch.targets:
            count = len(target.boxes)
            assert count <= 50
            assert target.boxes.shape == (count, 4)
            assert type(target.boxes) is torch.Tensor
            assert target.boxes.dtype == target.weights.dtype == torch.float32
            assert target.labels.dtype == torch.int64
            assert target.difficult.dtype == target.crowd.dtype == torch.bool
            assert (target.boxes >= 0).all()
            assert (target.boxes <= batch.images.shape[-1]).all()
            assert target.original_size == (64, 64)
            assert target.path == Path()
    assert sides == {(64, 64), (96, 96)}


def test_mixup_stops_after_its_epochs():
    augment = AugmentConfig.off().model_copy(update={"mixup_alpha": 1.5, "mixup_epochs": 1})
    first, second = _train(augment=augment, batch_size=13, steps=2)
    blended = [target for target in first.targets if (target.weights < 1).any()]
    assert len(blended) == 13
    for target in blended:
        own = len(DIGITS.records[target.image_id].boxes)
        share = target.weights[0]
        assert torch.all(target.weights[:own] == share)
        np.testing.assert_allclose(target.weights[own:], 1 - share, atol=1e-6)
        assert len(target.weights) > own
    assert all((target.weights == 1).all() for target in second.targets)


def test_unvaried_training_is_validation():
    (batch,) = _train(augment=AugmentConfig.off(), batch_size=13, steps=1)
    (expected,) = val_loader(DIGITS, preprocessing=SMALL, batch_size=13)
    by_id = {target.image_id: (image, target) for image, target in zip(*_pairs(batch), strict=True)}
    for image, target in zip(*_pairs(expected), strict=True):
        assert torch.equal(by_id[target.image_id][0], image)
        assert torch.equal(by_id[target.image_id][1].boxes, target.boxes)


def _pairs(batch):
    return batch.images, batch.targets


def test_at_most_max_boxes_stay():
    augment = AugmentConfig.off().model_copy(update={"max_boxes": 2})
    (batch,) = _train(augment=augment, batch_size=13, steps=1)
    for target in batch.targets:
        record = DIGITS.records[target.image_id]
        np.testing.assert_array_equal(target.boxes, record.boxes[:2])
        assert target.labels.tolist() == record.labels[:2].tolist()


def _marked(*, difficult=(), crowd=()):
    record = DIGITS.records[1]
    flags = np.zeros((2, len(record.boxes)), dtype=bool)
    flags[0, list(difficult)] = True
    flags[1, list(crowd)] = True
    return replace(DIGITS, records=(replace(record, difficult=flags[0], crowd=flags[1]),))


def test_difficult_objects_and_crowds_are_for_evaluation_only():
    box_set = _marked(difficult=[0], crowd=[1])
    count = len(box_set.records[0].boxes)
    assert count > 2
    (batch,) = _train(box_set, augment=AugmentConfig.off(), batch_size=1, steps=1)
    assert len(batch.targets[0].boxes) == count - 2
    (batch,) = val_loader(box_set, preprocessing=SMALL, batch_size=1)
    assert torch.where(batch.targets[0].difficult)[0].tolist() == [0]
    assert torch.where(batch.targets[0].crowd)[0].tolist() == [1]


def test_boxes_that_stand_out_are_clipped():
    record = replace(DIGITS.records[0], boxes=as_boxes([(-1, 5, 65, 60)]))
    record = replace(
        record, labels=np.array([1]), difficult=np.zeros(1, bool), crowd=np.zeros(1, bool)
    )
    box_set = replace(DIGITS, records=(record,))
    (batch,) = val_loader(box_set, preprocessing=SMALL, batch_size=1)
    assert batch.targets[0].boxes.tolist() == [[0, 5, 64, 60]]


@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 0), (2, 0), (3, 0), (20, 0), (2, 2)])
def test_validation_sees_every_picture_once(world_size, num_workers):
    seen = []
    for rank in range(world_size):
        loader = val_loader(
            DIGITS,
            preprocessing=SMALL,
            batch_size=4,
            rank=rank,
            world_size=world_size,
            num_workers=num_workers,
        )
        seen += [target.image_id for batch in loader for target in batch.targets]
    assert sorted(seen) == list(range(13))


def test_validation_boxes_are_in_pixels_of_the_input():
    preprocessing = Preprocessing(height=32, width=128)
    (batch,) = val_loader(DIGITS, preprocessing=preprocessing, batch_size=13)
    assert batch.images.shape == (13, 3, 32, 128)
    for target, record in zip(batch.targets, DIGITS.records, strict=True):
        np.testing.assert_allclose(target.boxes, record.boxes * [2, 0.5, 2, 0.5])
        assert target.original_size == (64, 64)
    image = torch.from_numpy(DIGITS.image(3)).permute(2, 0, 1)
    assert torch.equal(batch.images[3], prepare(image, preprocessing))


@pytest.mark.slow
def test_loaders_work_in_spawned_processes():
    loader = _train(steps=3)
    spawned = DataLoader(
        loader.dataset,
        batch_sampler=loader.batch_sampler,
        collate_fn=loader.collate_fn,
        num_workers=1,
        multiprocessing_context="spawn",
    )
    assert _all_same(list(loader), list(spawned))


def test_what_workers_get_can_be_pickled():
    loader = _train()
    dataset, collate = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn)))
    draws = next(iter(loader.batch_sampler))
    assert _same(collate([dataset[draw] for draw in draws]), next(iter(loader)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 14}, "must not take more images than the training set has, 13"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"rank": 1}, "rank must be below world_size"),
    ],
)
def test_refuses_impossible_streams(options, message):
    with pytest.raises(ConfigError, match=message):
        _train(**options)


def test_refuses_oblong_multi_scale_and_empty_sets():
    with pytest.raises(ConfigError, match=r"square preprocessing\. Received 64x32"):
        _train(preprocessing=Preprocessing(height=64, width=32))
    with pytest.raises(DataError, match=r"must have images\. Received 'digits/train' with none"):
        _train(make_digits("train", 0))
    with pytest.raises(ConfigError, match="batch_size must be at least 1"):
        val_loader(DIGITS, preprocessing=SMALL, batch_size=0)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bad_picture_stops_loading_by_name(tmp_path, num_workers):
    write_voc(make_digits("train", 2, size=64), tmp_path)
    bad = tmp_path / "JPEGImages/train_00001.png"
    bad.write_bytes(bad.read_bytes()[:300])
    box_set = open_set(DataConfig(format="voc", root=str(tmp_path)), "train")
    loader = _train(box_set, batch_size=2, steps=1, num_workers=num_workers)
    with pytest.raises(DataError, match=r"must decode to the last pixel.*train_00001\.png"):
        list(loader)


def test_open_set_reads_every_format(tmp_path):
    digits = DataConfig(format="digits", train_count=3, val_count=2, size=64, seed=4)
    made = {split: open_set(digits, split) for split in ("train", "val")}
    assert {split: len(box_set) for split, box_set in made.items()} == {"train": 3, "val": 2}
    for box_set in made.values():
        write_voc(box_set, tmp_path)
    voc = DataConfig(format="voc", root=str(tmp_path))
    for split, box_set in made.items():
        read = open_set(voc, split)
        for one, two in zip(box_set.records, read.records, strict=True):
            np.testing.assert_array_equal(one.boxes, two.boxes)
    (tmp_path / "val.json").write_text('{"images": [], "annotations": [], "categories": []}')
    coco = DataConfig(format="coco", root=str(tmp_path), val="val.json", labels=("a",))
    with pytest.raises(DataError, match="Every label must be a category"):
        open_set(coco, "val")


def test_use_difficult_makes_objects_ordinary(tmp_path):
    box_set = _marked(difficult=[0, 1])
    write_voc(BoxSet("x/val", box_set.labels, box_set.records, DIGITS.image), tmp_path)
    config = DataConfig(format="voc", root=str(tmp_path))
    assert open_set(config, "val").records[0].difficult.sum() == 2
    use = config.model_copy(update={"use_difficult": True})
    assert open_set(use, "val").records[0].difficult.sum() == 0


def test_pictures_of_other_sizes_are_handled(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(np.zeros((20, 40, 3), dtype=np.uint8)).save(path)
    record = replace(DIGITS.records[0], path=path, height=20, width=40)
    (batch,) = val_loader(replace(DIGITS, records=(record,)), preprocessing=SMALL, batch_size=1)
    assert batch.targets[0].original_size == (20, 40)
    assert batch.targets[0].path == path
    assert torch.equal(batch.images[0], prepare(read_image(path), SMALL))


@pytest.mark.data
def test_real_batches_keep_boxes_in_the_picture(data_root):
    config = DataConfig(format="voc", root=str(data_root / "det_bccd"))
    preprocessing = Preprocessing(height=320, width=320)
    loader = train_loader(
        open_set(config, "train"),
        preprocessing=preprocessing,
        augment=AugmentConfig(),
        batch_size=8,
        steps=6,
    )
    targets = [target for batch in loader for target in batch.targets]
    boxes = torch.cat([target.boxes for target in targets])
    assert len(targets) == 48
    assert len(boxes) > 200
    assert boxes.min() >= 0
    assert boxes.max() <= 320
    assert (boxes[:, 2:] - boxes[:, :2]).min() >= 1
    assert {target.original_size for target in targets} == {(480, 640)}


def outlined(count=2):
    """A set of one tall image whose right half is one object."""
    pixels = np.zeros((40, 20, 3), dtype=np.uint8)
    pixels[:, 10:] = 255
    polygon = np.float32([10, 0, 20, 0, 20, 40, 10, 40])
    record = replace(
        make_digits("train", 1, size=32).records[0],
        height=40,
        width=20,
        boxes=np.float32([[10, 0, 20, 40]]),
        labels=np.int64([1]),
        difficult=np.array([False]),
        crowd=np.array([False]),
        lines=(0,),
        outlines=((polygon,),),
    )
    return BoxSet("halves", ("a", "b"), (record,) * count, lambda index: pixels)


MASKED = AugmentConfig.off().model_copy(update={"flip": True, "expand": True, "crop": True})


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_masks_go_where_the_pixels_go(fit):
    preprocessing = Preprocessing(height=32, width=48, fit=fit, mean=(0, 0, 0), std=(1, 1, 1))
    loader = train_loader(
        outlined(), preprocessing=preprocessing, augment=MASKED, batch_size=1, steps=12
    )
    seen = 0
    for batch in loader:
        (target,) = batch.targets
        assert target.masks.shape == (len(target.boxes), 32, 48)
        assert target.masks.dtype == torch.bool
        for mask, box in zip(target.masks, target.boxes, strict=True):
            rows, columns = torch.where(mask)
            edges = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert (edges - box).abs().max() <= 2
            bright = batch.images[0, 0] > 0.6
            assert (bright & mask).sum() / (bright | mask).sum() > 0.7
            seen += 1
    assert seen > 6


def test_padded_pictures_keep_their_shape_in_training_and_evaluation():
    preprocessing = Preprocessing(height=32, width=48, fit="pad", mean=(0, 0, 0), std=(1, 1, 1))
    off = AugmentConfig.off()
    common = {"preprocessing": preprocessing, "batch_size": 1}
    trained = next(iter(train_loader(outlined(), augment=off, steps=1, **common)))
    tested = next(iter(val_loader(outlined(), **common)))
    for batch in (trained, tested):
        target = batch.targets[0]
        assert target.scale == (1.25, 1.25)
        torch.testing.assert_close(target.boxes, torch.tensor([[8.0, 0, 16, 32]]))
        assert batch.images[0, :, :, 16:].abs().sum() == 0
        assert batch.images[0, 0, :, 9:16].mean() > 0.9
    assert tested.targets[0].masks is None
    (lengths,) = tested.targets[0].outlines
    assert lengths["size"] == [40, 20]
    again = pickle.loads(pickle.dumps(tested.targets[0]))
    assert again.outlines == tested.targets[0].outlines


def test_pictures_with_masks_are_not_blended():
    with pytest.raises(ConfigError, match=r"cannot be blended.*mixup_alpha"):
        train_loader(
            outlined(),
            preprocessing=Preprocessing(height=32, width=32),
            augment=AugmentConfig(),
            batch_size=1,
            steps=1,
        )

import numpy as np

from flyweight.data.records import BoxRecord, BoxSet, ClassRecord, ClassSet, MapSet
from flyweight.data.samples.strata import stratified_order


def boxes(labels):
    count = len(labels)
    flags = np.zeros(count, dtype=bool)
    return BoxRecord(
        path=None,
        height=8,
        width=8,
        boxes=np.zeros((count, 4), dtype=np.float32),
        labels=np.array(labels, dtype=np.int64),
        difficult=flags,
        crowd=flags,
        lines=tuple(range(count)),
        annotation=None,
    )


def classes(labels):
    return ClassSet("set", ("a", "b", "c"), tuple(ClassRecord(None, n, None, None) for n in labels))


def test_every_beginning_has_its_share_of_every_class():
    labels = [0] * 60 + [1] * 30 + [2] * 10
    for seed in range(5):
        order = stratified_order(classes(labels), seed)
        assert sorted(order) == list(range(100))
        for count in range(1, 101):
            seen = np.bincount([labels[index] for index in order[:count]], minlength=3)
            assert np.all(np.abs(seen - count * np.array([0.6, 0.3, 0.1])) < 2)


def test_seeds_shuffle_and_one_seed_gives_one_order():
    found = classes([0] * 20)
    assert stratified_order(found, 1) == stratified_order(found, 1) != stratified_order(found, 2)
    assert list(stratified_order(found)) != list(range(20))


def test_detection_goes_by_the_rarest_class_and_the_number_of_objects():
    common, rare, crowded = boxes([0]), boxes([0, 1]), boxes([0] * 20)
    records = (*[common] * 12, *[rare] * 4, *[crowded] * 4, boxes([]), boxes([]))
    order = stratified_order(BoxSet("set", ("a", "b"), records))
    half = order[: len(order) // 2]
    assert sum(12 <= index < 16 for index in half) in (1, 2, 3)
    assert sum(16 <= index < 20 for index in half) in (1, 2, 3)
    assert sum(index >= 20 for index in half) in (0, 1, 2)
    assert sorted(order) == list(range(22))


def test_segmentation_is_shuffled():
    order = stratified_order(MapSet("set", ("a",), (None,) * 9))
    assert sorted(order) == list(range(9))
    assert list(order) != list(range(9))

import torch

from flyweight.data.batch import Batch
from flyweight.sensitivity.digests import digest_of_batch, digest_of_tensors


def test_values_shapes_types_and_order_tell_tensors_apart():
    plain = torch.arange(6.0)
    others = [
        [plain + 1],
        [plain.reshape(2, 3)],
        [plain.double()],
        [plain.to(torch.int32)],
        [plain, plain],
        [],
    ]
    digests = {digest_of_tensors(tensors) for tensors in ([plain], *others)}
    assert len(digests) == 1 + len(others)
    assert digest_of_tensors([plain, plain + 1]) != digest_of_tensors([plain + 1, plain])


def test_memory_layout_does_not():
    image = torch.rand(1, 3, 4, 5)
    other = image.to(memory_format=torch.channels_last)
    assert digest_of_tensors([image]) == digest_of_tensors([other])
    assert digest_of_tensors([image.bfloat16()])


def test_a_batch_is_its_pictures_or_all_its_tensors():
    images = torch.rand(2, 3, 4, 4)
    assert digest_of_batch(Batch(images, ())) == digest_of_tensors([images])
    labels = torch.tensor([1, 2])
    assert digest_of_batch((images, labels)) == digest_of_tensors([images, labels])
    assert digest_of_batch((images, labels)) != digest_of_batch((images, labels + 1))

import numpy as np

from flyweight.runtimes.protocol import TensorInfo
from flyweight.runtimes.random_inputs import random_inputs


def test_values_follow_type_shape_and_seed():
    inputs = [TensorInfo("a", "float32", (2, 3)), TensorInfo("b", "int64", (50,))]
    found = random_inputs(inputs, seed=1)
    assert {name: (array.dtype.name, array.shape) for name, array in found.items()} == {
        "a": ("float32", (2, 3)),
        "b": ("int64", (50,)),
    }
    assert found["b"].min() >= 0
    np.testing.assert_array_equal(found["a"], random_inputs(inputs, seed=1)["a"])
    assert not np.array_equal(found["a"], random_inputs(inputs, seed=2)["a"])


def test_given_shapes_replace_free_sizes():
    inputs = [TensorInfo("a", "float16", ("batch", 3))]
    assert random_inputs(inputs, {"a": [4, 3]})["a"].shape == (4, 3)

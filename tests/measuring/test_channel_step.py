import pytest
from tests.measuring.machine import blocked, layer

from flyweight.measuring.channel_step import find_step

LAYERS = (layer(), layer(kernel=1), layer(groups=0))


@pytest.mark.parametrize("step", [1, 4, 8, 16, 32])
def test_the_step_of_a_machine_is_found(step):
    found = find_step(LAYERS, blocked(step))
    assert found.step == step
    assert f"fast channel step {step} (" in str(found)
    if step > 1:
        assert found.excess[{4: 1, 8: 4, 16: 8, 32: 16}[step]] > 0.1
    assert all(found.excess[coarser] < 0.01 for coarser in found.excess if coarser >= step)


def test_a_machine_that_is_slow_at_the_start_and_noisy():
    import random

    draw, exact = random.Random(0), blocked(16)

    def timer(geometry, points):
        return [time * (1 + draw.gauss(0, 0.03)) + 0.01 for time in exact(geometry, points)]

    assert find_step(LAYERS, timer).step == 16


def test_each_kind_of_layer_is_asked_once_at_a_moderate_size():
    calls = []
    find_step((*LAYERS, *LAYERS), blocked(8, calls=calls))
    kinds = [(geometry.groups, geometry.kernel) for geometry, _ in calls]
    assert sorted(kinds) == [(0, (3, 3)), (1, (1, 1)), (1, (3, 3))]
    assert all(max(geometry.size) <= 40 for geometry, _ in calls)

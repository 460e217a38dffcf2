import pytest

from flyweight.config.tasks import TaskConfig
from flyweight.errors import ConfigError
from flyweight.tasks.by_name import task_for
from flyweight.zoo.specs import SPECS


@pytest.mark.parametrize("name", SPECS)
def test_every_network_of_the_zoo_has_its_task(name):
    spec = SPECS[name]
    task = task_for(spec.task, spec.geometry, ("a", "b"), TaskConfig())
    assert task.name == spec.task
    assert task.labels == ("a", "b")


def test_what_no_task_understands_is_refused():
    with pytest.raises(ConfigError, match=r"'detect' with no geometry"):
        task_for("detect", None, ("a",), TaskConfig())
    with pytest.raises(ConfigError, match=r"'sing'.*Known: .*detect"):
        task_for("sing", None, ("a",), TaskConfig())

import pickle

import pytest

from flyweight.config.reading import load_config
from flyweight.pipeline.settings_view import Leaf, UndeclaredSettingError, leaves_of, view_of

CONFIG = load_config("demo_digits", ("width=0.1",))[1]


def test_declared_settings_are_read_as_they_are():
    view = view_of(CONFIG, ("width", "train", "prune.criterion"), "stage")
    assert (view.width, view.train) == (0.1, CONFIG.train)
    assert view.prune.criterion == "l1_norm"


@pytest.mark.parametrize(
    ("read", "place"),
    [
        (lambda view: view.model, "model"),
        (lambda view: view.prune.params, "prune.params"),
        (lambda view: view.prune.cut, "prune.params"),
        (lambda view: view.preprocessing, "input_size"),
        (lambda view: view.arguments, "model_args"),
    ],
)
def test_other_settings_are_refused(read, place):
    view = view_of(CONFIG, ("width", "num_classes", "prune.criterion"), "export")
    said = rf"Received '{place}', which the stage 'export' does not declare"
    with pytest.raises(UndeclaredSettingError, match=said):
        read(view)


def test_properties_work_where_all_that_they_read_is_declared():
    view = view_of(CONFIG, ("num_classes", "width", "model_args"), "stage")
    assert view.arguments == CONFIG.arguments


def test_a_view_is_sent_to_other_processes_and_cannot_be_changed():
    view = pickle.loads(pickle.dumps(view_of(CONFIG, ("width", "prune.ratios"), "stage")))
    assert (view.width, view.prune.ratios) == (0.1, CONFIG.prune.ratios)
    with pytest.raises(UndeclaredSettingError):
        _ = view.model
    with pytest.raises(AttributeError, match="read only"):
        view.width = 1
    with pytest.raises(AttributeError, match="has no 'withd'"):
        _ = view.withd
    assert not hasattr(view, "__len__")


def test_leaves_are_single_settings():
    leaves = leaves_of(CONFIG, ("detect", "model_args", "data.labels", "finetune.steps"))
    assert leaves["detect.suppression.keep"] == Leaf(100, True)
    assert leaves["detect.metric"] == Leaf("voc_area", False)
    assert leaves["model_args"] == Leaf({}, True)
    assert leaves["data.labels"] == Leaf(None, True)
    assert leaves["finetune.steps"] == Leaf(CONFIG.finetune.steps, False)
    assert "detect" not in leaves
    without = CONFIG.model_copy(update={"finetune": None})
    assert leaves_of(without, ("finetune.steps",)) == {}
    assert leaves_of(without, ("finetune",)) == {"finetune": Leaf(None, True)}

import sys
from pathlib import Path

import pytest
from torch import nn

from flyweight import zoo
from flyweight.errors import ConfigError
from flyweight.origin import origin_of
from flyweight.zoo.sources.own import build_own, import_own

SOURCE = """
from torch import nn
def build(num_classes=2, width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.Conv2d(width, num_classes, 1))
class Zoo:
    build = staticmethod(build)
number = 7
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("ownpack").mkdir()
    Path("ownpack/nets.py").write_text(SOURCE)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("ownpack")]:
        del sys.modules[name]


def test_a_function_of_the_current_folder(here):
    for name in ("ownpack.nets:build", "ownpack.nets:Zoo.build"):
        model = build_own(import_own(name), name, {"num_classes": 3})
        assert model[1].out_channels == 3
        assert origin_of(model).architecture == name
        assert origin_of(model).arguments == {"num_classes": 3}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ownpack.nets:", "written package.module:function"),
        ("own-pack:build", "written package.module:function"),
        ("ownpack.nets:build()", "written package.module:function"),
        ("ownpack.net:build", "No module named 'ownpack.net'"),
        ("ownpack.nets:bild", "has no 'bild'. Nearest: 'build'"),
        ("ownpack.nets:number", "which is of type int"),
    ],
)
def test_names_that_cannot_be_followed(here, name, said):
    with pytest.raises(ConfigError) as error:
        import_own(name)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_what_a_function_takes_and_returns(here):
    build = import_own("ownpack.nets:build")
    with pytest.raises(ConfigError, match=r"depth=3.*unexpected keyword"):
        build_own(build, "ownpack.nets:build", {"depth": 3})
    with pytest.raises(ConfigError, match=r"must return a torch.nn.Module. Received a dict"):
        build_own(dict, "builtins:dict", {})


def test_create_takes_the_function_itself():
    model = zoo.create(nn.Linear, in_features=2, out_features=3)
    assert origin_of(model).architecture == "torch.nn.modules.linear:Linear"
    assert not zoo.is_own_name("unet")


def test_create_does_not_follow_names(here):
    with pytest.raises(ConfigError, match="A model must be one of the zoo"):
        zoo.create("ownpack.nets:build")
    assert "ownpack" not in sys.modules

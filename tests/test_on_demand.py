import pytest

from flyweight.on_demand import load, names_on_demand


def test_a_module_or_a_name_in_it_is_loaded():
    import json

    assert load("json") is json
    assert load("json:dumps") is json.dumps


def test_what_does_not_exist_is_the_usual_error():
    with pytest.raises(ModuleNotFoundError):
        load("flyweight.nowhere")
    with pytest.raises(AttributeError):
        load("json:nothing")


def test_names_of_a_package_load_on_first_use():
    get = names_on_demand("package", {"dumps": "json:dumps"})
    assert get("dumps")([1]) == "[1]"
    with pytest.raises(AttributeError, match="module 'package' has no attribute 'other'"):
        get("other")

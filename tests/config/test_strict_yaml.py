import pytest

from flyweight.config.strict_yaml import load_yaml
from flyweight.errors import ConfigError


def test_plain_yaml_with_merges():
    text = """
base: &base {steps: 1, gamma: 2}
deep:
  inner: &inner {<<: *base, steps: 3}
shallow: {<<: *inner, steps: 4}
"""
    assert load_yaml(text, "a") == {
        "base": {"steps": 1, "gamma": 2},
        "deep": {"inner": {"steps": 3, "gamma": 2}},
        "shallow": {"steps": 4, "gamma": 2},
    }


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("model: a\nwidth: 1\nmodel: b\n", "model", 3),
        ("train:\n  steps: 1\n  gamma: 1\n  steps: 2\n", "steps", 4),
        ('train: {steps: 1,\n  "steps": 2}\n', "steps", 2),
        ("a: [{b: 1}, {b: 2, b: 3}]\n", "b", 1),
    ],
)
def test_a_key_given_twice(text, key, line):
    with pytest.raises(ConfigError, match=rf"Received '{key}' again, where: my\.yaml:{line}\. "):
        load_yaml(text, "my.yaml")


@pytest.mark.parametrize("text", ["a: [", "a: 2026-13-01", "a: *b", "a: !!python/name:os.system"])
def test_what_is_no_yaml(text):
    with pytest.raises(ConfigError, match=r"must be YAML\. Received 'my\.yaml': .+ there\.$"):
        load_yaml(text, "my.yaml")

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import flyweight

HEAVY = ("torch", "numpy", "torchvision", "lightning", "onnxruntime", "onnx", "pydantic", "typer")


def test_the_names_are_sorted_and_there():
    assert flyweight.__all__ == sorted(flyweight.__all__)
    for name in flyweight.__all__:
        assert callable(getattr(flyweight, name)), name
        assert name in dir(flyweight)


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(flyweight.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.asname: f"{node.module}.{alias.name}"
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(seen) == flyweight.__all__
    for name, place in seen.items():
        module, _, attribute = place.rpartition(".")
        __import__(module)
        assert getattr(flyweight, name) is getattr(sys.modules[module], attribute)


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="has no attribute 'prnue'"):
        flyweight.prnue  # noqa: B018


def test_importing_it_loads_nothing_heavy():
    code = f"import sys, flyweight; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

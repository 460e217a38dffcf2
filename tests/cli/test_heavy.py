"""The names that commands load on demand."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from flyweight.cli import heavy
from flyweight.on_demand import load


def test_type_checkers_see_the_same_names():
    (block,) = [
        node
        for node in ast.parse(Path(heavy.__file__).read_text(encoding="utf-8")).body
        if isinstance(node, ast.If)
    ]
    seen = {
        alias.asname: f"{node.module}:{alias.name}" for node in block.body for alias in node.names
    }
    assert seen == heavy.HOMES
    assert list(heavy.HOMES) == sorted(heavy.HOMES)


@pytest.mark.parametrize("name", heavy.HOMES)
def test_every_name_is_there(name):
    assert getattr(heavy, name) is load(heavy.HOMES[name])


def test_the_table_itself_loads_nothing():
    code = (
        "import sys; from flyweight.cli import heavy; "
        "print([name for name in ('torch', 'numpy', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

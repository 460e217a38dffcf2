import ast
import subprocess
import sys
from pathlib import Path

import pytest

from flyweight import pipeline
from flyweight.on_demand import load


def test_type_checkers_see_the_same_names():
    (block,) = [
        node
        for node in ast.parse(Path(pipeline.__file__).read_text(encoding="utf-8")).body
        if isinstance(node, ast.If)
    ]
    seen = {
        alias.asname: f"{node.module}:{alias.name}" for node in block.body for alias in node.names
    }
    assert seen == pipeline.HOMES
    assert list(pipeline.HOMES) == sorted(pipeline.HOMES)


@pytest.mark.parametrize("name", pipeline.HOMES)
def test_every_name_is_there(name):
    assert getattr(pipeline, name) is load(pipeline.HOMES[name])
    assert name in dir(pipeline)


def test_importing_the_package_imports_no_torch():
    code = (
        "import sys; from flyweight import pipeline; "
        "from flyweight.pipeline import preflight, model_source, rendered_report; "
        "print([name for name in ('torch', 'lightning') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

"""The house rules that a tool can check."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE, TESTS = ROOT / "src" / "flyweight", ROOT / "tests"

# Modules without a test file of their own name, and why.
UNTESTED_BY_NAME = {
    "__main__.py": "two lines; the tests of the command line run it",
    "cli/app.py": "declares options; test_end_to_end.py and test_mistakes.py run every command",
    "cli/options.py": "declares options, as app.py does",
    "engine/run.py": "run by test_fit.py",
    "data/samples/box_samples.py": "what the loaders yield; run by test_loading.py",
    "zoo/spec.py": "the type of a row; test_specs.py looks at all of them",
    "tasks/task.py": "protocols; test_detect.py holds an implementation to them",
}
# Test files without a module of their own name, and what they look at.
TESTS_OF_MORE_THAN_ONE_MODULE = {
    "test_architecture.py": "the whole tree",
    "test_docs.py": "the documents",
    "test_renamed.py": "the table of moved names",
    "test_version_0_1_0.py": "files that version 0.1.0 wrote",
    "cli/test_end_to_end.py": "every command, one after the other",
    "cli/test_families.py": "classifiers, segmenters and own networks through every command",
    "cli/test_mistakes.py": "every error that a user can cause",
    "config/test_presets.py": "the YAML files",
    "exporting/test_detector.py": "a whole detector through the room",
    "pipeline/test_families.py": "every family of detectors through the whole chain",
    "pruning/test_exactness.py": "graph and pruning together, on random and real networks",
    "benchmarks/test_graph_coverage.py": "the files of the coverage benchmark",
}


def modules():
    return sorted(path.relative_to(SOURCE) for path in SOURCE.rglob("*.py"))


def test_imports_point_down():
    code = "from importlinter.cli import lint_imports_command as run; run()"
    command = [sys.executable, "-c", code, "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    result = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


def _test_of(module):
    name = "init" if module.name == "__init__.py" else module.stem.removeprefix("_")
    return module.parent / f"test_{name}.py"


def _needs_a_test(module):
    """A package file that only passes names on has nothing to test."""
    text = (SOURCE / module).read_text()
    return module.name != "__init__.py" or "\ndef " in text or "] = {" in text


def test_the_tests_mirror_the_source():
    wanted = {
        module
        for module in modules()
        if _needs_a_test(module) and module.as_posix() not in UNTESTED_BY_NAME
    }
    assert Path("graph/rules/__init__.py") in wanted
    missing = sorted(str(m) for m in wanted if not (TESTS / _test_of(m)).is_file())
    assert not missing


def test_every_test_file_has_its_module():
    known = {_test_of(module).as_posix() for module in modules()}
    found = {path.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py")}
    assert not sorted(found - known - TESTS_OF_MORE_THAN_ONE_MODULE.keys())
    assert TESTS_OF_MORE_THAN_ONE_MODULE.keys() <= found


@pytest.mark.parametrize("folder", [SOURCE, TESTS], ids=["src", "tests"])
def test_files_stay_short(folder):
    lengths = {path.name: len(path.read_text().splitlines()) for path in folder.rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 500} == {}


def test_every_module_is_named_after_what_it_holds():
    words = {part for module in modules() for part in module.with_suffix("").parts}
    assert not words & {"util", "utils", "common", "helper", "helpers", "misc"}


def test_graph_and_pruning_name_no_model_class():
    import torchvision

    from flyweight.zoo import specs

    names = {*torchvision.models.list_models(), *specs.SPECS}
    names |= {type_.__name__ for type_ in _model_classes()}
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, sorted(names))) + r")\b", re.IGNORECASE)
    found = {
        str(path): match.group()
        for room in ("graph", "pruning")
        for path in (SOURCE / room).rglob("*.py")
        if (match := pattern.search(path.read_text()))
    }
    assert found == {}
    assert pattern.search("isinstance(model, ResNet)")
    assert pattern.search("if name == 'yolov3_mobilenet_v1'")


def _model_classes():
    import torchvision
    from torch import nn

    from flyweight.zoo.backbones import blocks, mobilenet_v1
    from flyweight.zoo.detectors import yolo

    spaces = [torchvision.models, blocks, mobilenet_v1, yolo]
    found = [value for space in spaces for value in vars(space).values()]
    return [
        value
        for value in found
        if isinstance(value, type)
        and issubclass(value, nn.Module)
        and not value.__module__.startswith("torch.nn")
    ]


def test_nothing_is_unpickled_and_nothing_deprecated_is_leant_on():
    banned = re.compile(r"\btorch\.ao\b|\bpickle\.loads?\b|weights_only=False")
    found = [str(path) for path in SOURCE.rglob("*.py") if banned.search(path.read_text())]
    assert found == []

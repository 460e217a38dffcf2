"""Rules of the source tree that a tool can check: layers, cycles, names, sizes and tests."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import grimp
import pytest

import flyweight
from flyweight.runtimes.runtime_table import RUNTIMES

ROOT = Path(__file__).resolve().parents[1]
SOURCE, TESTS = ROOT / "src" / "flyweight", ROOT / "tests"

# Extras that need not be installed: only these may be imported inside a function.
OPTIONAL = {"ray", "openvino", "segmentation_models_pytorch"}
# Public functions of `flyweight` that are planned; no folder may take their names either.
PLANNED_FUNCTIONS = {"compress"}

# Modules that share a name because they are parts of one thing, and what that thing is.
SAME_NAME = {
    "boxes": "boxes of a detection: decoded, and drawn",
    "scan": "a sensitivity scan: exact, and fast",
    "ssd": "the detector SSD: network, loss, decoding",
    "two_stage": "two-stage detectors: network, loss",
    "yolo": "the detector YOLOv3: network, loss, decoding",
}

# Modules without a test file of their own name, and why.
UNTESTED_BY_NAME = {
    "__main__.py": "two lines; the tests of the command line run it",
    "cli/options.py": "declares options; the tests of every command use them",
    "engine/run.py": "run by test_fit.py",
    "data/samples/box_samples.py": "what the loaders yield; run by test_loading.py",
    "zoo/spec.py": "the type of a row; test_specs.py looks at all of them",
    "runtimes/protocol.py": "protocols; test_runtime_table.py holds every runtime to them",
    "tasks/task.py": "protocols; test_detect.py holds an implementation to them",
}
# Test files without a module of their own name, and what they look at.
TESTS_OF_MORE_THAN_ONE_MODULE = {
    "test_architecture.py": "the whole tree",
    "test_checkpoint_formats.py": "the formats of a checkpoint's header",
    "test_conftest.py": "how the tests run",
    "test_docs.py": "the documents",
    "test_renamed.py": "the table of moved names",
    "test_words.py": "the text of the code and the documents",
    "test_version_0_1_0.py": "files that version 0.1.0 wrote",
    "cli/test_completion.py": "completion in shells",
    "cli/test_end_to_end.py": "every command, one after the other",
    "cli/test_families.py": "classifiers, segmenters and own networks through every command",
    "cli/test_mistakes.py": "every error that a user can cause",
    "config/test_presets.py": "the YAML files",
    "report/test_screens.py": "the page in a browser",
    "exporting/test_detector.py": "export of a whole detector",
    "pipeline/test_families.py": "every family of detectors through the whole chain",
    "pruning/test_exactness.py": "graph and pruning together, on random and real networks",
    "pruning/test_idioms_by_chance.py": "several runs and pruning together, on random networks",
    "benchmarks/test_graph_coverage.py": "the files of the coverage benchmark",
    "benchmarks/test_faults.py": "the benchmark that kills commands",
    "benchmarks/test_fuzz.py": "the fuzz benchmark, and a sample of it",
    "benchmarks/test_distillation.py": "the benchmark of distillation",
    "benchmarks/test_coverage_oracle.py": "the checks of the coverage benchmark",
    "benchmarks/test_quantization_pieces.py": "the comparison of quantized files with PyTorch",
    "quantization/test_operations.py": "quantization, export and runtimes, per operation",
    "graph/test_idioms.py": "small networks as people write them, from trace to cut",
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


@cache
def _tree(module):
    return ast.parse((SOURCE / module).read_text(encoding="utf-8"))


def _functions(module):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(_tree(module)) if isinstance(node, kinds)]


def _folder(dotted):
    """Return the folder, or file, directly under flyweight that holds a module."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def _dotted(module):
    parts = ("flyweight", *module.with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _layers():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = settings["tool"]["importlinter"]["contracts"]
    return [[name.strip() for name in row.split("|")] for row in contract["layers"]]


REFERENCE = re.compile(r"(flyweight(?:\.\w+)+)(?::\w+)?")


def _references():
    """Yield (module, module that it loads on demand) for every reference in a string."""
    known = {_dotted(module) for module in modules()}
    for module in modules():
        for node in ast.walk(_tree(module)) if module != Path("__init__.py") else ():
            text = node.value if isinstance(node, ast.Constant) else None
            match = REFERENCE.fullmatch(text) if isinstance(text, str) else None
            if match and match[1] in known:
                yield _dotted(module), match[1]


@cache
def _imports():
    """Return module -> modules that it imports, inside functions and on demand included."""
    graph = grimp.build_graph("flyweight", exclude_type_checking_imports=True, cache_dir=None)
    found = {
        name: set(graph.find_modules_directly_imported_by(name))
        for name in graph.modules - {"flyweight"}
    }
    for module, loaded in _references():
        found[module].add(loaded)
    return found


def _cycles(imports):
    """Return cycles, one after the other, each broken where it was found."""
    left, cycles = {name: set(others) for name, others in imports.items()}, []
    while True:
        try:
            TopologicalSorter(left).prepare()
        except CycleError as error:
            cycle = error.args[1][::-1]
            cycles.append(cycle)
            left[cycle[0]].discard(cycle[1])
        else:
            return cycles


def test_no_module_imports_itself_through_others():
    cycles = _cycles(_imports())
    assert [" -> ".join(cycle) for cycle in cycles] == []
    (cycle,) = _cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}})
    assert all(
        second in {"a": {"b"}, "b": {"c"}, "c": {"b"}}[first] for first, second in pairwise(cycle)
    )


def test_names_on_demand_point_down():
    row = {name: number for number, names in enumerate(_layers()) for name in names}
    upward = [
        f"{module} -> {loaded}"
        for module, loaded in _references()
        if _folder(module) != _folder(loaded) and row[_folder(module)] >= row[_folder(loaded)]
    ]
    assert upward == []
    assert row["cli"] < row["graph"] < row["errors"]


def test_the_drawing_shows_the_layers():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (drawing,) = re.findall(r"```mermaid\n(.+?)```", page, re.DOTALL)
    drawn = [[name.strip() for name in row.split("|")] for row in re.findall(r'"(.+?)"', drawing)]
    assert drawn == _layers()
    nodes = re.findall(r'(\w+)\["', drawing)
    arrows = re.sub(r'\[".+?"\]', "", drawing)
    linked = {pair for line in arrows.splitlines() for pair in pairwise(re.findall(r"\w+", line))}
    assert linked >= set(pairwise(nodes))
    described = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert described == {path.name for path in SOURCE.iterdir() if (path / "__init__.py").is_file()}


def test_the_architecture_page_names_files_that_exist():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/]+\.(?:py|yaml|toml|md|csv))`", page))
    assert len(named) > 30
    assert [
        name for name in named if not ((ROOT / name).exists() or (SOURCE / name).exists())
    ] == []


def _imports_in(function):
    for node in ast.walk(function):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("load", "on_demand.load"):
            argument = node.args[0] if node.args else None
            if isinstance(argument, ast.Constant):
                yield ast.unparse(node)


def test_only_optional_packages_are_imported_inside_functions():
    """Heavy modules load through `on_demand.load`, from a table that stands in the module."""
    loader = Path("on_demand.py")
    found = [
        (_dotted(module), f"{function.name} imports {name}")
        for module in modules()
        if module != loader
        for function in _functions(module)
        for name in _imports_in(function)
        if name.split(".")[0] not in OPTIONAL
    ]
    assert found == []
    assert list(_imports_in(ast.parse("def f():\n    import a.b\n    on_demand.load('c:d')")))


def _parameters(function):
    given = function.args
    names = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    return [each for each in names if each.arg not in ("self", "cls")]


def _is_an_option(annotation, module=Path("cli/options.py")):
    """Whether a parameter is an option of a command, declared in its module or in options.py."""
    text = ast.unparse(annotation) if annotation else ""
    options = {
        ast.unparse(node.targets[0])
        for file in (Path("cli/options.py"), module)
        for node in _tree(file).body
        if isinstance(node, ast.Assign) and "typer." in ast.unparse(node.value)
    }
    return "typer." in text or text.split(".")[-1] in options


def test_functions_have_few_parameters():
    """At most seven, except where the parameters are the options of a command."""
    found = [
        (_dotted(module), f"{function.name} has {len(_parameters(function))}")
        for module in modules()
        for function in _functions(module)
        if len(_parameters(function)) > 7
        and not all(_is_an_option(each.annotation, module) for each in _parameters(function))
    ]
    assert found == []
    assert not _is_an_option(ast.parse("x: int").body[0].annotation)


def test_functions_are_short():
    lengths = [
        (function.end_lineno - function.lineno + 1, _dotted(module), function.name)
        for module in modules()
        for function in _functions(module)
    ]
    assert [entry for entry in lengths if entry[0] > 60] == []
    assert sorted(lengths)[int(0.9 * len(lengths))][0] <= 30


def test_no_folder_has_the_name_of_a_public_function():
    folders = {path.stem for path in SOURCE.iterdir()}
    assert not folders & ({*flyweight.__all__} | PLANNED_FUNCTIONS)


def test_public_names_stay_what_they_are_after_every_module_is_imported():
    code = """
import importlib, pkgutil, types
import flyweight as fw
before = {name: getattr(fw, name) for name in fw.__all__}
names = [found.name for found in pkgutil.walk_packages(fw.__path__, "flyweight.")]
loaded = {name: importlib.import_module(name) for name in names if not name.endswith("__main__")}
print([n for n, was in before.items() if getattr(fw, n) is not was or not callable(was)])
for name, module in loaded.items():
    for exported in getattr(module, "__all__", ()):
        if isinstance(getattr(module, exported), types.ModuleType):
            print(name, exported)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_modules_of_one_name_are_parts_of_one_thing():
    """The files of a command and of its stage bear the command's name."""
    places = defaultdict(list)
    for module in modules():
        command = module.parts[0] == "cli" or module.parts[:2] == ("pipeline", "stages")
        if module.name != "__init__.py" and not command:
            places[module.stem].append(module.as_posix())
    shared = {name: found for name, found in places.items() if len(found) > 1}
    assert {name: found for name, found in shared.items() if name not in SAME_NAME} == {}


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
        for folder in ("graph", "pruning", "quantization", "replay", "sensitivity")
        for path in (SOURCE / folder).rglob("*.py")
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
    banned = re.compile(
        r"\btorch\.ao\b|\btorch\.(?:load|save)\(|\bpickle\.loads?\b|weights_only=False"
    )
    assert banned.search("torch.save(state, path)")
    found = [str(path) for path in SOURCE.rglob("*.py") if banned.search(path.read_text())]
    assert found == []


def test_only_runtimes_import_a_runtime():
    """A new runtime is one file; a measuring process holds no more than the runtime and NumPy."""
    runtimes = {entry.package for entry in RUNTIMES.values()}
    found = [
        _dotted(module)
        for module in modules()
        if module.parts[0] != "runtimes"
        for node in ast.walk(_tree(module))
        if runtimes & {name.split(".")[0] for name in _names_of(node)}
    ]
    assert found == []
    heavy = {"torch", "pydantic", "onnx"}
    imported = {
        name.split(".")[0]
        for module in modules()
        if module.parts[0] == "runtimes"
        for node in ast.walk(_tree(module))
        for name in _names_of(node)
    }
    assert runtimes <= imported
    assert not heavy & imported


def _names_of(node):
    """Return the modules that a statement imports, or that a string loads on demand."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value.split(":")[0]] if re.fullmatch(r"[\w.]+:\w+", node.value) else []
    return []

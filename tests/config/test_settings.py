import os
import subprocess
import sys
from pathlib import Path

import flyweight.config
from flyweight.config.reading import load_config

FOLDER = Path(flyweight.config.__file__).parent
MODULES = sorted(f"flyweight.config.{path.stem}" for path in FOLDER.glob("[!_]*.py"))
HEAVY = ("torch", "torchvision", "numpy", "scipy", "lightning", "onnx", "onnxruntime", "matplotlib")


def test_no_module_of_the_folder_loads_torch():
    assert len(MODULES) > 8
    code = (
        f"import sys, importlib; [importlib.import_module(m) for m in {MODULES!r}]; "
        "from flyweight.config.reading import load_config; load_config('demo_digits'); "
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "[]"


def test_the_arguments_of_the_builder():
    _, config = load_config("demo_digits", ["width=0.5", "model_args={span: 3}"])
    assert config.arguments == {"num_classes": 10, "width": 0.5, "span": 3}
    _, config = load_config("demo_digits", ["width=null"])
    assert "width" not in config.arguments


def test_the_ground_truth_of_faces_lies_below_the_root():
    _, config = load_config("blazeface", ["data.root=faces", "data.ground_truth=truth"])
    assert config.tasks.detect.ground_truth == str(Path("faces/truth"))

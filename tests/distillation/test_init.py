import subprocess
import sys

import flyweight.distillation


def test_every_name_loads_and_importing_the_folder_needs_no_torch():
    for name in flyweight.distillation.__all__:
        assert getattr(flyweight.distillation, name) is not None
    assert set(flyweight.distillation.__all__) <= set(dir(flyweight.distillation))
    code = "import sys, flyweight.distillation; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

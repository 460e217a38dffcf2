import subprocess
import sys


def test_importing_the_room_does_not_import_lightning():
    code = (
        "import sys, flyweight.engine.fit, flyweight.engine.evaluate, flyweight.config.training;"
        "heavy = {'lightning', 'rich', 'tensorboard', 'torchvision'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_config_alone_does_not_import_torch():
    code = "import sys, flyweight.config.training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

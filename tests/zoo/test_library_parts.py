import subprocess
import sys
from importlib.util import find_spec

import pytest

from flyweight.zoo import library_parts


@pytest.mark.parametrize("name", library_parts._HOMES)
def test_every_row_leads_to_something(name):
    package = library_parts._HOMES[name].partition(":")[0].partition(".")[0]
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    assert getattr(library_parts, name) is not None


def test_a_name_that_is_in_no_row():
    with pytest.raises(AttributeError, match="no attribute 'soft_nms'"):
        library_parts.soft_nms  # noqa: B018


def test_the_networks_of_the_zoo_need_neither_torchvision_nor_timm():
    code = (
        "import sys, torch; from flyweight.zoo import create\n"
        "with torch.device('meta'): create('yolov3_mobilenet_v1'); create('unet')\n"
        "print([name for name in ('torchvision', 'timm', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

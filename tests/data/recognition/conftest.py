import numpy as np
import pytest
from PIL import Image

XML = (
    "<annotation><size><width>64</width><height>48</height></size><object><name>{0}</name>"
    "<bndbox><xmin>8</xmin><ymin>8</ymin><xmax>24</xmax><ymax>28</ymax></bndbox></object>"
    "</annotation>"
)


@pytest.fixture
def plant(tmp_path):
    """Return a function that makes a set: paths to texts, to lists of grey values, or to None.

    None makes an image of noise; grey values make a label image of these values.
    """

    def build(files, folder="set"):
        root = tmp_path / folder
        for number, (name, content) in enumerate(files.items()):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                path.write_text(content, encoding="utf-8")
                continue
            if content is None:
                values = np.random.default_rng(number).integers(0, 255, (48, 64, 3))
            else:
                values = np.resize(content, (48, 64))
            Image.fromarray(values.astype(np.uint8)).save(path)
        return root

    return build


@pytest.fixture
def voc_xml():
    """Return a function that makes the XML of one box of a class."""
    return XML.format

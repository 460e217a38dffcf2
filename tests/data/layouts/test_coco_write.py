import contextlib
import io
import json

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from flyweight.data.layouts.coco_write import write_coco


def test_pycocotools_reads_it(tmp_path, tiny_set):
    made = tiny_set(crowd={(1, 1)}, difficult={(0, 0)})
    path = write_coco(made, tmp_path)
    assert path == tmp_path / "annotations/instances_train.json"
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(path)
        # What was written is what is found, so that COCO's own code gives full marks.
        found = [
            {**{k: row[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.9}
            for row in truth.anns.values()
        ]
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == 1
    assert [truth.cats[key]["name"] for key in truth.getCatIds()] == ["cat", "dog"]
    assert [len(truth.getAnnIds(imgIds=[key])) for key in truth.getImgIds()] == [1, 2]
    crowds = truth.loadAnns(truth.getAnnIds(iscrowd=True))
    assert [row["bbox"] for row in crowds] == [[5, 6, 15, 8]]
    rows = json.loads(path.read_text())["annotations"]  # pycocotools has written over its own.
    assert [row["ignore"] for row in rows] == [1, 0, 0]
    sizes = {(image["height"], image["width"]) for image in truth.imgs.values()}
    assert sizes == {(24, 32)}
    assert (tmp_path / "train" / truth.imgs[1]["file_name"]).is_file()


def test_numbers_survive_text(tmp_path, tiny_set):
    odd = np.float32([[0.1, 1 / 3, 7.7, 23.999]])
    path = write_coco(tiny_set(boxes=[odd.tolist()]), tmp_path, split="odd")
    (row,) = json.loads(path.read_text())["annotations"]
    x, y, width, height = row["bbox"]
    np.testing.assert_array_equal(np.float32([x, y, x + width, y + height]), odd[0])
    assert path.name == "instances_odd.json"

import json

import pytest

from flyweight.errors import FileError
from flyweight.pipeline.distillation_curves import similarity_curves, terms_in


def test_the_terms_are_the_columns_of_a_distillation(tmp_path):
    log = tmp_path / "train.csv"
    assert terms_in(log) == []
    log.write_text("step,loss,task,loss_xy,distill/split_distill,learning_rate\n1,2,1,1,1,0.1\n")
    assert terms_in(log) == ["task", "distill/split_distill"]
    log.write_text("step,loss,task\n1,2,1\n")
    assert terms_in(log) == []


def test_similarity_is_a_line_before_and_a_line_after(tmp_path):
    path = tmp_path / "distilled.json"
    assert list(similarity_curves(path)) == []
    path.write_text(json.dumps({"similarity": {"stem": [0.5, 0.6], "head": [0.25, 0.75]}}))
    before, after = similarity_curves(path)
    assert (before.series, before.x, before.y) == ("before", (1, 2), (0.5, 0.25))
    assert (after.series, after.y, after.x_unit) == ("after", (0.6, 0.75), "tap")
    path.write_text("{}")
    with pytest.raises(FileError, match="must be whole"):
        list(similarity_curves(path))

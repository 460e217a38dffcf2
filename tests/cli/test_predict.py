from functools import partial
from pathlib import Path

import pytest
import torch

from flyweight.data.batch import BoxPrediction
from flyweight.pipeline.prediction import Predictor
from flyweight.tasks.decoding.boxes import listed_boxes


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.JPG", "notes.txt", "deep/c.png"):
        path = Path("shots", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    Path("empty").mkdir()
    return tmp_path


def test_what_is_found_is_counted_and_listed(flyweight, here, monkeypatch):
    def found(count):
        return BoxPrediction(
            boxes=torch.tensor([[1.0, 2.0, 30.4, 40.0]] * count).reshape(-1, 4),
            scores=torch.full((count,), 0.75),
            labels=torch.zeros(count, dtype=torch.int64),
        )

    answers = iter([found(1), found(2)])
    Path("w.onnx").touch()
    predictor = Predictor(
        lambda image: next(answers),
        partial(listed_boxes, labels=("cat",)),
        lambda *_, **__: None,
    )
    monkeypatch.setattr("flyweight.pipeline.prediction.from_onnx", lambda path, runtime: predictor)
    monkeypatch.setattr("flyweight.data.images.read_pixels", lambda path: None)
    monkeypatch.setattr("flyweight.pipeline.drawn_images.draw_file", lambda *paths: None)
    answer = flyweight("predict", "-w", "w.onnx", "shots", "--output-dir", "out")
    assert answer.err == "weights: w.onnx\n"
    assert answer.out.splitlines() == [
        "shots/a.JPG: 1 object -> out/a.png",
        "  cat  0.75  [1, 2, 30, 40]",
        "shots/b.png: 2 objects -> out/b.png",
        *["  cat  0.75  [1, 2, 30, 40]"] * 2,
    ]

"""Readers of files from outside, with good files of each, for `fuzz.py` to mutate."""

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from PIL import Image
from safetensors.torch import save as tensors_bytes
from scipy.io import savemat
from torch import nn

import flyweight as fw
from flyweight.config.preprocessing import Preprocessing
from flyweight.config.reading import load_config
from flyweight.config.training import TrainConfig
from flyweight.data.check import check
from flyweight.data.images import read_image
from flyweight.data.layouts.class_sets import read_class_list
from flyweight.data.layouts.coco import read_coco
from flyweight.data.layouts.map_files import read_map
from flyweight.data.layouts.map_sets import read_maps
from flyweight.data.layouts.voc import read_voc
from flyweight.data.layouts.wider import read_wider
from flyweight.data.layouts.wider_truth import LEVELS, read_truth
from flyweight.data.layouts.yolo_txt import read_yolo
from flyweight.engine.state import RunStatus, load_run, save_state
from flyweight.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    ExportError,
    FileError,
    FlyweightError,
    MeasureError,
    PlanError,
)
from flyweight.exporting.model_card import ModelCard, read_metadata, to_properties
from flyweight.measuring.latency_table import read_table
from flyweight.pipeline.prediction import from_onnx
from flyweight.report.collect import JSON_NAME, read_report
from flyweight.report.render import render_all
from flyweight.report.rows import Curve, Quantity, Report, Row, Width
from flyweight.sensitivity import curves
from flyweight.sensitivity.journal import Journal
from flyweight.tasks.metrics.wider_files import read_faces
from flyweight.workspace import MadeFrom, Workspace
from flyweight.zoo.sources.weights import fill, read_tensors


@dataclass(frozen=True)
class Reader:
    """One parser.

    Attributes:
        name: Of the row.
        kind: Key of `fuzz_mutations.KINDS`.
        promised: The error classes that the reader promises.
        seeds: Good files.
        read: Reads the file at a path; the folder around it is its own.
        file_name: Name of the file within that folder.
        weight: Share of the cases, against the other readers.
    """

    name: str
    kind: str
    promised: tuple[type[FlyweightError], ...]
    seeds: tuple[bytes, ...]
    read: Callable[[Path], Any]
    file_name: str = "file"
    weight: float = 1.0


def readers(folder: Path) -> tuple[Reader, ...]:
    """Return all readers; what they need beside the mutated file is made in `folder`."""
    made = [*_plans(folder), *_tables(folder), *_annotations(folder), *_images(folder)]
    more = (*_faces(folder), *_exports(folder))
    return (*made, *_configs(folder), *_tensors(folder), *_runs(folder), *more)


class _Net(nn.Module):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, num_classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.last(torch.relu(self.norm(self.first(images))))
        return found


def _plans(folder: Path) -> list[Reader]:
    graph = fw.trace(_Net(), (torch.rand(1, 3, 8, 8),))
    plan = fw.plan(graph, 0.5)

    def read_plan(path: Path) -> None:
        found = fw.PruningPlan.from_json(path.read_text(encoding="utf-8", errors="replace"))
        found.slices(graph)

    scan = {
        "format": 1,
        "metric": "map",
        "baseline": 0.5,
        "criterion": "l1_norm",
        "local": False,
        "measured_on": "x",
        "made_from": {"graph": "a"},
        "curves": {"a": [[0.1, 0.49], [0.2, 0.4, 0.3, 0.5]], "b": [[0.5, 0.1]]},
    }
    losses = {"conv_weights": {0.1: 0.01, np.float64(0.2): np.float32(0.5)}, "b": {0.5: 1}}
    pickles = tuple(pickle.dumps(losses, protocol) for protocol in range(6))
    # As the originals do: one layer needs a ratio.
    both = (DataError, PlanError)
    return [
        Reader("plan", "json", (PlanError,), (plan.to_json().encode(),), read_plan),
        Reader("sensitivity_json", "json", both, (json.dumps(scan).encode(),), _read_scan),
        Reader("sensitivity_pickle", "bytes", both, pickles, _read_scan),
    ]


def _read_scan(path: Path) -> None:
    curves.read(path).ratios(0.05)


def _tables(folder: Path) -> list[Reader]:
    table = {
        "format": 1,
        "made_on": {"runtime": "ort", "threads": "1"},
        "date": "",
        "step": 8,
        "excess": {"8": 1.0},
        "whole_ms": {"a": 1.5},
        "layers_ms": {"conv": [[1, 2, 3.0], [4, 5, 6.0]]},
    }
    quantity = {"label": "mAP", "value": 0.5, "unit": "fraction", "method": "m"}
    quantity |= {"low": 0.4, "high": 0.6}
    rows = tuple(
        Row(stage=stage, quantities={"map": Quantity(**quantity)}) for stage in ("dense", "pruned")
    )
    report = Report(
        title="t",
        subject="s",
        created="2026-01-01T00:00:00Z",
        command="c",
        environment={"cpu": "x"},
        rows=rows,
        widths=(Width(name="conv", before=8, after=4),),
        curves=(Curve(name="loss", series="a", x=(0, 1, 2), y=(3, 2, 1), unit="loss"),),
    )

    def render(path: Path) -> None:
        render_all(read_report(path.parent), path.parent)

    return [
        Reader(
            *("latency_table", "json", (MeasureError, FileError)),
            (json.dumps(table).encode(),),
            read_table,
        ),
        Reader(
            *("report", "json", (FileError,), (report.to_json().encode(),), render),
            file_name=JSON_NAME,
            weight=0.3,
        ),
    ]


_VOC = (
    b"<annotation><size><width>20</width><height>16</height><depth>3</depth></size>\n<object>"
    b"<name>cat</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax>"
    b"<ymax>8.5</ymax></bndbox></object></annotation>"
)
_WIDER = b"a.png\n2\n1 1 5 5 0 0 0 0 0 0\n2 2 3 3 0 0 0 1 0 0\nb.png\n1\n3 3 4 4\n"


def _with_images(path: Path) -> Path:
    """Put images beside a file, where its reader looks for them; return the folder."""
    picture = Image.new("RGB", (20, 16), (1, 2, 3))
    for name in ("a.png", "images/train/a.png", "JPEGImages/a.png"):
        target = path.parent / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            picture.save(target)
    return path.parent


_COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 16}],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "bbox": [1, 1, 5, 5.5],
            "iscrowd": 0,
            "area": 27.5,
            "segmentation": [[1, 1, 6, 1, 6, 6]],
        },
        {
            "id": 2,
            "image_id": 1,
            "category_id": 1,
            "bbox": [0, 0, 9, 9],
            "iscrowd": 1,
            "segmentation": {"size": [16, 20], "counts": [10, 300, 10]},
        },
    ],
    "categories": [{"id": 1, "name": "cat"}],
}


def _annotations(folder: Path) -> list[Reader]:
    def read_yolo_card(path: Path) -> None:
        list(check(read_yolo(_with_images(path), "train")))

    def read_yolo_rows(path: Path) -> None:
        list(check(read_yolo(_with_images(path.parents[1]), "train", labels=("cat", "dog"))))

    def read_xml(path: Path) -> None:
        root = _with_images(path.parent)
        (root / "train.txt").write_text("a\n")
        list(check(read_voc(root, "train.txt", labels=("cat", "dog"))))

    def read_coco_file(path: Path) -> None:
        list(check(read_coco(_with_images(path), path.name, masks=True)))
        read_coco(path.parent, path.name)

    def read_classes(path: Path) -> None:
        list(check(read_class_list(_with_images(path), path.name, labels=("cat", "dog"))))

    def read_map_list(path: Path) -> None:
        list(check(read_maps(_with_images(path), path.name, labels=("cat", "dog"))))

    def read_wider_text(path: Path) -> None:
        list(check(read_wider(_with_images(path), path.name)))

    data = (DataError,)
    card = b"path: .\ntrain: images/train\nnames:\n  0: cat\n  1: dog\nkpt_shape: [5, 3]\n"
    rows = (b"0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.2 0.1 0.2 0.2\n", b"1 0.25 0.5 0.125 0.25\n")
    return [
        Reader("yolo_card", "text", data, (card, b"names: [a, b]\n"), read_yolo_card, "data.yaml"),
        Reader("yolo_rows", "text", data, rows, read_yolo_rows, "labels/train/a.txt"),
        Reader("voc_xml", "text", data, (_VOC,), read_xml, "Annotations/a.xml"),
        Reader("coco", "json", data, (json.dumps(_COCO).encode(),), read_coco_file, "train.json"),
        Reader("class_list", "text", data, (b"a.png 0\nb.png dog\n",), read_classes, "train.txt"),
        Reader("map_list", "text", data, (b"a.png a.png\n",), read_map_list, "train.txt"),
        Reader("wider_text", "text", data, (_WIDER,), read_wider_text, "train.txt"),
    ]


def _images(folder: Path) -> list[Reader]:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 255, (16, 20, 3), dtype=np.uint8)
    picture, files, maps = Image.fromarray(pixels), [], []
    for ending in ("jpg", "png", "bmp", "gif", "tif", "webp", "ppm", "avif", "jp2"):
        path = folder / f"seed.{ending}"
        try:
            picture.save(path)
        except (OSError, KeyError, ValueError):  # a format that this Pillow was built without
            continue
        files.append(path.read_bytes())
    picture.save(folder / "progressive.jpg", progressive=True, exif=_turned())
    files.append((folder / "progressive.jpg").read_bytes())
    for mode in ("L", "P"):
        Image.fromarray(pixels[..., 0] % 3).convert(mode).save(folder / f"map_{mode}.png")
        maps.append((folder / f"map_{mode}.png").read_bytes())
    return [
        Reader("image", "bytes", (DataError,), tuple(files), read_image, weight=3),
        Reader("label_map", "bytes", (DataError,), tuple(maps), read_map),
    ]


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


_CONFIG = b"""model: yolov3_mobilenet_v1
num_classes: 10
input_size: 96
data: {format: digits, train_count: 8, val_count: 4}
train: &train {steps: 1, batch_size: 2}
finetune: {<<: *train, steps: 2}
prune: {criterion: l1_norm}
"""


def _configs(folder: Path) -> list[Reader]:
    def read_override(path: Path) -> None:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        load_config("demo_digits", [text])

    def read_config(path: Path) -> None:
        load_config(str(path))

    overrides = (
        b"train.steps=100",
        b"width=0.5",
        b"data.labels=[a, b]",
        b"prune={criterion: l1_norm}",
    )
    return [
        Reader("config", "text", (ConfigError,), (_CONFIG,), read_config, "config.yaml"),
        Reader("override", "text", (ConfigError,), overrides, read_override),
    ]


def _tensors(folder: Path) -> list[Reader]:
    torch.manual_seed(0)
    model = fw.create("yolov3_mobilenet_v1", num_classes=3, width=0.05)
    graph = fw.trace(model, (torch.rand(1, 3, 64, 64),))
    small = fw.prune(model, fw.plan(graph, {"yolo_block.0.0.0.conv.weight": 0.5}))
    fw.save(small, folder / "small.safetensors", labels=("a", "b", "c"), metrics={"map": 0.5})
    library = fw.create("torchvision/shufflenet_v2_x0_5", num_classes=2)
    fw.save(library, folder / "library.safetensors", labels=("a", "b"))
    files = [(folder / f"{name}.safetensors").read_bytes() for name in ("small", "library")]
    net = _Net()
    plain = tensors_bytes({**net.state_dict(), "half": torch.ones(3, dtype=torch.float16)})
    state = folder / "state.safetensors"
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.rand(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    document = {
        "model": net.state_dict(),
        "ema": None,
        "objective": None,
        "objective_ema": None,
        "optimizer": optimizer.state_dict(),
        "precision": {},
        "hooks": [("Hook", {"a": 1})],
    }
    save_state(
        state, TrainConfig(steps=9), RunStatus(step=3, best={"map": 0.5}, seconds=1.5), document
    )

    def load_weights(path: Path) -> None:
        fill(_Net(), read_tensors(path), str(path))

    refused = (CheckpointError, FileError)
    return [
        Reader("checkpoint", "tensors", (CheckpointError,), tuple(files), fw.load, weight=0.15),
        Reader("weights", "tensors", refused, (plain,), load_weights),
        Reader("training_state", "tensors", (CheckpointError,), (state.read_bytes(),), load_run),
    ]


def _runs(folder: Path) -> list[Reader]:
    workspace = Workspace(folder / "run")
    workspace.begin(MadeFrom({"steps": 3, "data": "0123456789abcdef"}))
    workspace.keep_part("plan.json")
    Journal(folder / "s.json", {"graph": "a"}).add(
        0, "d", {("layer", 0.1): {"seen": (1, 2.5), "x": torch.arange(3.0), "y": np.arange(3)}}
    )
    parts = folder / "s.json.parts"
    note, part = ((parts / name).read_bytes() for name in ("made_from.json", "batch-000000.json"))

    def read_note(path: Path) -> None:
        Workspace(path.parent).standing(MadeFrom({"steps": 3}))

    def read_part(path: Path) -> None:
        (path.parent / "made_from.json").write_bytes(note)
        journal = Journal(path.parents[1] / "s.json", {"graph": "a"})
        journal.held(0, "d")
        list(journal.all(1))

    def read_facts(path: Path) -> None:
        (path.parent / "batch-000000.json").write_bytes(part)
        Journal(path.parents[1] / "s.json", {"graph": "a"}).held(0, "d")

    data = (DataError,)
    journal = "s.json.parts"
    return [
        Reader("run_note", "json", (), (workspace.note_path.read_bytes(),), read_note, "run.json"),
        Reader("journal_part", "json", data, (part,), read_part, f"{journal}/batch-000000.json"),
        Reader("journal_note", "json", data, (note,), read_facts, f"{journal}/made_from.json"),
    ]


def _faces(folder: Path) -> list[Reader]:
    def cells(items: Sequence[Any]) -> Any:
        column = np.empty((len(items), 1), dtype=object)
        for place, item in enumerate(items):
            column[place, 0] = item
        return column

    boxes = cells([cells([np.array([[1, 2, 30, 40]]), np.array([[5, 6, 7, 8]])])])
    kept = cells([cells([np.array([[1]], np.uint8), np.array([[1]], np.uint8)])])
    common = {"event_list": cells(["0--Parade"]), "file_list": cells([cells(["a", "b"])])}
    files = {}
    for name in ("face", *LEVELS):
        path = folder / f"wider_{name}_val.mat"
        savemat(path, {**common, "face_bbx_list": boxes, "gt_list": kept})
        files[path.name] = path.read_bytes()

    def read_mat(path: Path) -> None:
        for name, data in files.items():
            if name != path.name:
                (path.parent / name).write_bytes(data)
        read_truth(path.parent)

    def read_found(path: Path) -> None:
        list(read_faces(path.parents[1]))

    found = (b"0--Parade/a\n2\n1 2 30 40 0.9\n5 6 7 8 0.25\n",)
    data = (DataError,)
    return [
        Reader("wider_mat", "bytes", data, tuple(files.values()), read_mat, "wider_face_val.mat"),
        Reader("found_faces", "text", data, found, read_found, "0--Parade/a.txt"),
    ]


def _exports(folder: Path) -> list[Reader]:
    helper = onnx.helper
    one, two = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 3, 4, 4]), ("y", [1, 3]))
    )
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [one], [two])
    opsets = [helper.make_opsetid("", 17)]
    bare = helper.make_model(graph, ir_version=8, opset_imports=opsets).SerializeToString()
    card = ModelCard(
        name="net",
        task="classify",
        labels=("a", "b", "c"),
        preprocessing=Preprocessing(height=4, width=4),
        extra={"map": "0.5"},
    )
    properties = {key: json.loads(text) for key, text in to_properties(card).items()}

    def described(values: Mapping[str, str]) -> bytes:
        model = onnx.load_from_string(bare)
        for key, value in values.items():
            model.metadata_props.add(key=key, value=value)
        data: bytes = model.SerializeToString()
        return data

    def predict(path: Path) -> None:
        """Describe the graph as the mutated JSON does, and predict with it."""
        try:
            values = json.loads(path.read_bytes())
            texts = {str(key): json.dumps(value) for key, value in values.items()}
            data = described(texts)
        except (ValueError, AttributeError, RecursionError):
            return  # no description that a file can have
        target = path.with_suffix(".onnx")
        target.write_bytes(data)
        predictor = from_onnx(target)
        image = np.zeros((6, 5, 3), np.uint8)
        prediction = predictor.predict(image)
        predictor.listed(prediction, threshold=0.1)
        predictor.draw(Image.fromarray(image), prediction=prediction, threshold=0.1)

    whole = (described(to_properties(card)),)
    refused = (ExportError, FileError, ConfigError)
    return [
        Reader("onnx_card", "bytes", (ExportError, FileError), whole, read_metadata),
        Reader(
            *("onnx_predict", "json", refused, (json.dumps(properties).encode(),), predict),
            weight=0.4,
        ),
    ]

"""One small report that every test of this room looks at."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from flyweight.report import quantities
from flyweight.report.class_results import ClassResult, ClassResults, Confusion
from flyweight.report.rows import Curve, Quantity, Report, ReportImage, Row, Width

TIMED = "median of 100 pictures, 95 % interval"


def _quantities(
    mean_ap: float, macs: int, size: int, median: float, spread: float
) -> dict[str, Quantity]:
    return {
        "voc_11point": quantities.metric(
            "mAP", mean_ap, method="IoU 0.5, 72 pictures", detail="VOC 11-point"
        ),
        "macs": quantities.macs(macs, method="convolutions at 320 x 320"),
        "size_bytes": quantities.file_size(size, method="ONNX file"),
        "latency_ms.1": quantities.latency(
            median,
            low_ms=median - spread,
            high_ms=median + spread,
            threads=1,
            runtime="ONNX Runtime",
            method=TIMED,
        ),
    }


@pytest.fixture
def report() -> Report:
    """Return a report of two stages with widths, curves and two pictures, not yet on disk."""
    return Report(
        title="YOLOv3-MobileNetV1 on BCCD",
        subject="YOLOv3-MobileNetV1",
        created=datetime(2026, 11, 30, 14, 3, tzinfo=UTC),
        command="flyweight demo -c bccd",
        environment={"processor": "Xeon", "torch": "2.15.0"},
        rows=(
            Row(
                stage="dense", quantities=_quantities(0.842, 6_009_600_000, 97_147_524, 84.93, 0.9)
            ),
            Row(
                stage="pruned", quantities=_quantities(0.834, 1_828_700_000, 31_549_568, 32.7, 0.7)
            ),
        ),
        widths=(
            Width(name="yolo_block.0.0.0.conv.weight", before=512, after=256),
            Width(name="yolo_block.0.0.1.conv.weight", before=1024, after=512),
        ),
        curves=(
            Curve(name="Training loss", series="dense", x=(0, 1, 2), y=(9, 5, 4), unit="loss"),
            Curve(name="Training loss", series="pruned", x=(0, 1), y=(5, 4), unit="loss"),
        ),
        images=(
            ReportImage(title="cells", stage="dense", path="pictures/a.png", caption="17 objects"),
            ReportImage(title="cells", stage="pruned", path="pictures/b.jpg", caption="18 objects"),
        ),
        class_results=ClassResults(
            metric="Average precision at IoU 0.5",
            counted="objects",
            stages=("dense", "pruned"),
            classes=(
                ClassResult(name="red cell", count=1200, values=(0.842, 0.834)),
                ClassResult(name="platelet", count=0, values=(None, None)),
            ),
        ),
        precision_recall=(
            Curve(name="Precision", series="dense", x=(0, 90), y=(1, 0.5), unit="fraction"),
        ),
        confusions=(
            Confusion(
                stage="dense", counted="images", labels=("cat", "dog"), counts=((9, 1), (0, 0))
            ),
        ),
        notes=("One seed.",),
    )


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Return a folder that holds the pictures of `report`."""
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (40, 30), "red").save(tmp_path / "pictures" / "a.png")
    Image.new("RGB", (40, 30), "blue").save(tmp_path / "pictures" / "b.jpg")
    return tmp_path

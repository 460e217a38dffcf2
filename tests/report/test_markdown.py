import pytest

from flyweight.report.formatting import ABSENT, MINUS, TIMES
from flyweight.report.markdown import comparison_table, stage_table, to_markdown
from flyweight.report.rows import Report, Row

EXPECTED = """\
# YOLOv3-MobileNetV1 on BCCD

**Pruned YOLOv3-MobileNetV1 is 2.6x faster at 1 thread, 3.1x smaller, and loses 0.8 points of mAP.**

| Quantity               |             dense |            pruned |                    change |
| ---------------------- | ----------------: | ----------------: | ------------------------: |
| mAP, VOC 11-point (%)  |              84.2 |              83.4 |               -0.8 points |
| MACs (G)               |              6.01 |              1.83 |               3.29x fewer |
| File size (MiB)        |              92.6 |              30.1 |             3.08x smaller |
| Latency, 1 thread (ms) | 84.9 [84.0, 85.8] | 32.7 [32.0, 33.4] | 2.60x faster [2.52, 2.68] |

## Images

### cells

![cells, dense](<pictures/a.png>) ![cells, pruned](<pictures/b.jpg>)

dense: 17 objects; pruned: 18 objects

## Channels per layer

| Layer                        | before | after | kept (%) |
| ---------------------------- | -----: | ----: | -------: |
| yolo_block.0.0.0.conv.weight |    512 |   256 |       50 |
| yolo_block.0.0.1.conv.weight |   1024 |   512 |       50 |

## How it was measured

- mAP, VOC 11-point: IoU 0.5, 72 pictures
- MACs: convolutions at 320 x 320
- File size: ONNX file
- Latency, 1 thread: median of 100 pictures, 95 % interval (runtime ONNX Runtime, threads 1)

## Environment

- processor: Xeon
- torch: 2.15.0

Made 2026-11-30 14:03 UTC by:

```sh
flyweight demo -c bccd
```

One seed.
"""


def test_exact_text(report: Report) -> None:
    plain = report.model_copy(update={"class_results": None})
    ascii_only = to_markdown(plain).replace(TIMES, "x").replace(MINUS, "-")
    assert ascii_only == EXPECTED


def test_results_by_class(report: Report) -> None:
    text = to_markdown(report)
    assert "## Average precision at IoU 0.5 of every class" in text
    assert "| red cell |   1,200 |      84.2 |       83.4 |" in text


def test_three_stages_compare_with_the_first(report: Report) -> None:
    third = Row(stage="quantized", quantities={"macs": report.rows[0].quantities["macs"]})
    table = comparison_table(report.model_copy(update={"rows": (*report.rows, third)}))
    header, _, first, macs, *_ = table.splitlines()
    cells = [cell.strip() for cell in header.strip("|").split("|")]
    assert cells == ["Quantity", "dense", "pruned", "pruned: change", *cells[4:]]
    assert cells[4:] == ["quantized", "quantized: change"]
    assert macs.rstrip("| ").endswith("same")
    assert "\N{EN DASH}" in first


@pytest.mark.parametrize(
    ("raw", "written"),
    [
        ("<script>alert(1)</script>", r"\<script>alert(1)\</script>"),
        ("a|b", r"a\|b"),
        ("[x](http://evil)", r"[x\](http://evil)"),
        ("snake_case *bold* `code`", r"snake_case \*bold\* \`code\`"),
        ("__init__", r"\_\_init\_\_"),
        ("&lt;", r"\&lt;"),
        ("two\nlines", "two lines"),
        ("# no heading", r"\# no heading"),
    ],
)
def test_text_is_taken_literally(report: Report, raw: str, written: str) -> None:
    text = to_markdown(report.model_copy(update={"notes": (raw,)}))
    assert text.splitlines()[-1] == written


def test_command_cannot_close_its_fence(report: Report) -> None:
    text = to_markdown(report.model_copy(update={"command": "a\n```\n# heading"}))
    assert "````sh\na\n```\n# heading\n````" in text


def test_a_line_per_stage(report):
    metric = report.rows[0].quantities["voc_11point"]
    alike = metric.model_copy(update={"value": 0.8431, "difference": (-0.002, 0.004)})
    control = Row(stage="dense, fine-tuned alike", quantities={"voc_11point": alike})
    longer = report.model_copy(update={"rows": (report.rows[0], control, report.rows[1])})
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in stage_table(longer).splitlines()
    ]
    assert lines[0] == [
        *("Network", "mAP, VOC 11-point (%)", "change"),
        *("MACs (G)", "File size (MiB)", "Latency, 1 thread (ms)"),
    ]
    assert lines[2] == ["dense", "84.2", "", "6.01", "92.6", "84.9 [84.0, 85.8]"]
    assert lines[3] == [
        "dense, fine-tuned alike",
        "84.3",
        f"no difference [{MINUS}0.2, +0.4]",
        ABSENT,
        ABSENT,
        ABSENT,
    ]
    assert lines[4] == [
        *("pruned", "83.4", f"{MINUS}0.8 points", f"1.83 (3.29{TIMES} fewer)"),
        *(f"30.1 (3.08{TIMES} smaller)", f"32.7 [32.0, 33.4] (2.60{TIMES} faster)"),
    ]

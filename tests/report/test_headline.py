from flyweight.report import quantities
from flyweight.report.formatting import TIMES
from flyweight.report.headline import headline, highlights
from flyweight.report.rows import Quantity, Report, Row


def altered(report: Report, **changed: Quantity) -> Report:
    """Return the report with quantities of the last row replaced, dots written as underscores."""
    last = report.rows[-1]
    by_name = {key.replace(".", "_"): key for key in last.quantities}
    replaced = {by_name[name]: quantity for name, quantity in changed.items()}
    row = Row(stage=last.stage, quantities={**last.quantities, **replaced})
    return report.model_copy(update={"rows": (*report.rows[:-1], row)})


def moved(report: Report, key: str, **values: float) -> Quantity:
    return report.rows[-1].quantities[key].model_copy(update=values)


def test_result_in_words(report: Report) -> None:
    assert headline(report) == (
        f"Pruned YOLOv3-MobileNetV1 is 2.6{TIMES} faster at 1 thread, 3.1{TIMES} smaller, "
        "and loses 0.8 points of mAP."
    )
    assert highlights(report) == ("latency_ms.1", "size_bytes", "voc_11point")


def test_overlap_is_said(report: Report) -> None:
    timing = moved(report, "latency_ms.1", value=84.5, low=83.0, high=86.0)
    metric = moved(report, "voc_11point", value=0.85)
    said = headline(altered(report, latency_ms_1=timing, voc_11point=metric))
    assert "is as fast as dense at 1 thread (the intervals overlap), 3.1" in said
    assert said.endswith("and gains 0.8 points of mAP.")


def test_loss_is_said_plainly(report: Report) -> None:
    timing = moved(report, "latency_ms.1", value=849.3, low=840.0, high=850.0)
    metric = moved(report, "voc_11point", value=0.842)
    said = headline(altered(report, latency_ms_1=timing, voc_11point=metric))
    assert f"is 10{TIMES} slower at 1 thread" in said
    assert said.endswith("and keeps the mAP of dense.")


def test_macs_stand_in_for_latency(report: Report) -> None:
    rows = tuple(
        Row(stage=row.stage, quantities={"macs": row.quantities["macs"]}) for row in report.rows
    )
    said = headline(report.model_copy(update={"rows": rows}))
    assert said == f"Pruned YOLOv3-MobileNetV1 needs 3.3{TIMES} fewer MACs."


def test_one_row_states_its_values(report: Report) -> None:
    said = headline(report.model_copy(update={"rows": report.rows[:1]}))
    assert said == "Dense YOLOv3-MobileNetV1: 84.9 ms at 1 thread, 92.6 MiB, 84.2 %."


def test_different_methods_are_not_compared(report: Report) -> None:
    other = quantities.metric("mAP", 0.9, method="other pictures", detail="VOC 11-point")
    said = headline(altered(report, voc_11point=other))
    assert said.endswith("cannot be compared in mAP (measured by different methods).")


def test_nothing_measured(report: Report) -> None:
    rows = (Row(stage="dense", quantities={}),)
    said = headline(report.model_copy(update={"rows": rows}))
    assert said == "Dense YOLOv3-MobileNetV1: nothing was measured at every stage."


def test_rows_in_between_may_lack_what_the_ends_have(report):
    only = {"voc_11point": report.rows[0].quantities["voc_11point"]}
    control = Row(stage="dense, fine-tuned alike", quantities=only)
    longer = report.model_copy(update={"rows": (report.rows[0], control, report.rows[1])})
    assert headline(longer) == headline(report)

from pathlib import Path
from types import SimpleNamespace

import pytest

SMALL = ("width=0.1", "input_size=64", "data.size=64", "data.train_count=2", "data.val_count=2")
GIVEN = ("-c", "demo_digits", "-o", *SMALL)


@pytest.fixture
def calls(monkeypatch):
    """Replace the stage by one that notes what it was called with."""
    made = []

    def distill(name, settings, options, *, resume, progress):
        made.append((name, settings, options, resume))
        return SimpleNamespace(
            checkpoint=Path("output/best.safetensors"),
            primary="map_50",
            before={"map_50": 0.25},
            metrics={"map_50": 0.5, "ap/1": 0.1},
            teacher={"map_50": 0.75},
            similarity={"stem": (0.25, 0.5)},
        )

    monkeypatch.setattr("flyweight.pipeline.stages.distill.distill", distill)
    return made


def test_distill_prints_before_and_after_as_json(flyweight, calls, tmp_path):
    (tmp_path / "student.safetensors").touch()
    (tmp_path / "teacher.safetensors").touch()
    answer = flyweight(
        *("distill", *GIVEN, "-w", "student", "-t", "teacher", "--strategy", "pkd", "--json")
    )
    assert answer.json["checkpoint"] == "output/best.safetensors"
    assert answer.json["metric"] == {"before": 0.25, "after": 0.5}
    assert answer.json["teacher_metric"] == 0.75
    assert answer.json["similarity"] == {"stem": {"before": 0.25, "after": 0.5}}
    assert "similarity at stem: 0.250 -> 0.500" in answer.err
    (_, settings, options, resume) = calls[0]
    assert (settings.weights, settings.distill.teacher) == ("student", "teacher")
    assert settings.distill.strategy == "pkd"
    assert not options.cut.given
    assert resume is False


def test_the_spellings_of_the_original_tools_work(flyweight, calls, tmp_path):
    (tmp_path / "teacher.safetensors").touch()
    answer = flyweight(
        *("distill", *GIVEN, "use_fine_grained_loss=true", "--teacher_config", "yolov3_r34"),
        *("--teacher_pretrained", "teacher.safetensors", "--pruned_params", "a,b"),
        *("--pruned_ratios", "0.5,0.6", "-r"),
    )
    assert answer.status == 0, answer.err
    assert answer.out.splitlines() == [
        "map_50",
        "teacher   75.00 %",
        "before    25.00 %",
        "after     50.00 %",
        "saved output/best.safetensors",
    ]
    (_, settings, options, resume) = calls[0]
    section = settings.distill
    assert section.strategy_name == "split"
    assert section.teacher is None
    assert (section.teacher_config, section.teacher_pretrained) == (
        "yolov3_r34",
        "teacher.safetensors",
    )
    assert (options.params, options.ratios) == ("a,b", "0.5,0.6")
    assert resume is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-t", "yolov3_r34"], "teacher_pretrained should be set"),
        (["--teacher-pretrained", "x"], "Received no -t"),
        (["-t", "none.safetensors"], "A file of weights must exist"),
        (["--strategy", "pdk"], "Nearest: 'pkd'"),
        (["-w", "none"], "A file of weights must exist"),
    ],
)
def test_mistakes_are_one_line(flyweight, calls, arguments, message):
    answer = flyweight("distill", *GIVEN, *arguments)
    assert message in answer.mistake
    assert calls == []

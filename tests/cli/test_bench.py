import pytest
from tests.measuring.machine import blocked
from tests.measuring.quantized_files import OneLayer

from flyweight.config.reading import load_config
from flyweight.pipeline.inputs import Saver
from flyweight.pipeline.network_plans import build_model
from flyweight.sensitivity import Point, Sensitivity, Timing

SMALL = ("width=0.1", "input_size=64", "data.val_count=3", "data.size=64")
NAMES = ("yolo_block.0.0.0.conv.weights", "yolo_block.2.tip.conv.weights")
CONFIG = ("-c", "demo_digits", *(word for text in SMALL for word in ("-o", text)))


@pytest.fixture
def machine(monkeypatch):
    """Replace the runtime by a machine with blocks of 8 channels."""
    home = "flyweight.pipeline.latency_cuts.NetworkTimer"
    monkeypatch.setattr(
        "flyweight.measuring.table_builder.RuntimeTimer", lambda threads, runtime: blocked(8)
    )
    monkeypatch.setattr(f"{home}.dense_ms", lambda self: 50.0)

    def pruned(self, ratios):
        latency = 50 * (1 - 0.3 * sum(ratios.values()) / len(NAMES))
        return Timing(latency, (latency, latency), 50.0)

    monkeypatch.setattr(f"{home}.pruned", pruned)


@pytest.fixture
def curves(tmp_path):
    points = {name: tuple(Point(r / 10, 0.8 - 0.01 * r) for r in range(1, 10)) for name in NAMES}
    Sensitivity("map_50", 0.8, points, local=True).save(tmp_path / "s.json")
    return ("--sensitivities", "s.json")


@pytest.fixture
def dense(tmp_path):
    """The options that name a dense network."""
    config = load_config("demo_digits", SMALL)[1]
    Saver(config, tuple("0123456789"), "detect")(build_model(config), {}, tmp_path / "dense")
    return ("-o", "weights=dense")


def test_a_table_and_a_budget(flyweight, machine, curves, tmp_path):
    answer = flyweight("bench", "--layers", *CONFIG, "--save", "t.json")
    assert answer.status == 0, answer.err
    assert "fast channel step 8 (" in answer.out
    assert "whole network 50.000 ms" in answer.out
    found = flyweight("bench", "--layers", *CONFIG, "--save", "t.json", "--json").json
    assert (found["step"], found["dense_ms"]) == (8, pytest.approx(50))
    assert (found["made_on"]["threads"], found["file"]) == ("1", "t.json")
    assert list(found["layers_ms"].values()) == sorted(found["layers_ms"].values(), reverse=True)
    prune = ("prune", *CONFIG, *curves, "--latency-table", "t.json")
    dry = flyweight(*prune, "--budget", "latency_share=0.97", "--dry-run", "--json")
    assert dry.status == 0, dry.err
    assert "of 50.000 ms, as the table predicts it" in dry.err
    assert dry.json["groups"]
    missing = flyweight(*prune[:-1], "none.json", "--budget", "latency_ms=9", "--dry-run")
    assert "A latency table must be readable" in missing.mistake
    other = ("prune", "-c", "demo_digits", *CONFIG[2:4], "-o", "input_size=96", *prune[-4:])
    assert "must know every layer" in flyweight(*other, "--budget", "latency_ms=9", "--dry-run").mistake  # fmt: skip  # noqa: E501


def test_prune_measures_in_rounds(flyweight, machine, curves, dense, tmp_path):
    assert flyweight("bench", "--layers", *CONFIG, "--save", "t.json").status == 0
    prune = ("prune", *CONFIG, *dense, *curves, "--latency-table", "t.json", "--no-finetune")
    answer = flyweight(*prune, "--budget", "latency_ms=45")
    assert answer.status == 0, answer.err
    assert "round 1: measured " in answer.err
    assert "within the budget, " in answer.err
    assert list(tmp_path.rglob("pruned.safetensors"))
    floor = flyweight(*prune, "--budget", "latency_ms=2")
    assert floor.status == 2
    assert "2.000 ms, which is infeasible: the floor is " in floor.err


def test_a_budget_is_verified_on_the_runtime_of_its_table(
    flyweight, machine, curves, dense, monkeypatch
):
    save = ("--save", "t.json", "--runtime", "openvino")
    found = flyweight("bench", "--layers", *CONFIG, *save, "--json").json
    assert found["made_on"]["runtime"].startswith("openvino 20")
    runtimes = []
    home = "flyweight.pipeline.latency_cuts.NetworkTimer"

    def pruned(self, ratios):
        runtimes.append(self.runtime)
        return Timing(44.0, (44.0, 44.0), 50.0)

    monkeypatch.setattr(f"{home}.pruned", pruned)
    prune = ("prune", *CONFIG, *dense, *curves, "--latency-table", "t.json", "--no-finetune")
    assert flyweight(*prune, "--budget", "latency_ms=45").status == 0
    assert set(runtimes) == {"openvino"}
    mixed = flyweight("bench", "--layers", *CONFIG, "--save", "t.json")
    assert "must be continued on the same runtime" in mixed.err


def test_the_layers_of_a_file(flyweight, tmp_path):
    OneLayer(after=("HardSwish",)).save(tmp_path / "a.onnx")
    answer = flyweight("bench", "a.onnx", "--operators")
    assert answer.status == 0, answer.err
    first, second, _, _, layer = answer.out.splitlines()
    assert first == "0 of 1 layer runs on integers in ONNX Runtime"
    assert second == "no float islands between integer layers"
    reason = (
        "its result is not quantized before HardSwish 'the_after0', which is not computed with it"
    )
    assert layer.split(maxsplit=3) == ["the_y", "Conv", "float32", reason]
    found = flyweight("bench", "a.onnx", "--operators", "--json").json
    names = {"name": "the_y", "kind": "Conv"}
    assert found["layers"] == [{**names, "precision": "float32", "reason": reason}]
    found = flyweight("bench", "a.onnx", "--operators", "--json", "--runtime", "openvino").json
    assert found["layers"] == [{**names, "precision": "int8", "reason": ""}]


def test_a_runtime_that_is_not_installed(flyweight, tmp_path, monkeypatch):
    OneLayer().save(tmp_path / "a.onnx")
    monkeypatch.setattr("flyweight.runtimes.runtime_table.find_spec", lambda name: None)
    answer = flyweight("bench", "a.onnx", "--operators", "--runtime", "openvino")
    assert "Install it with: pip install 'flyweight[openvino]'" in answer.mistake


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "must have one ONNX file. Received none"),
        (("none.onnx",), "'none.onnx' must be an ONNX file"),
        (("text.onnx",), "'text.onnx' must be an ONNX file"),
        (("text.onnx", "none.onnx"), "must have one ONNX file. Received 2"),
        (("text.onnx", "--layers"), "must come with a file, --runtime and --json alone"),
        (("text.onnx", "--save", "a.json"), "--operators times nothing"),
        (("text.onnx", "--threads", "2"), "--operators times nothing"),
        (("text.onnx", "--seconds", "1"), "--operators times nothing"),
        (("text.onnx", "--runtime", "onnxruntime,openvino"), "must be one of onnxruntime"),
    ],
)
def test_mistakes_with_operators(flyweight, tmp_path, arguments, said):
    (tmp_path / "text.onnx").write_text("no graph")
    assert said in flyweight("bench", "--operators", *arguments).mistake


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("bench", "--layers"), "--layers must have a network"),
        (("bench", "--layers", *CONFIG, "--threads", "1,2"), "must be of one thread count"),
        (("bench", "--layers", *CONFIG, "--runtime", "openvin"), "Nearest: 'openvino'"),
        (("bench", "a.onnx", "--runtime", "tvm"), "must be one of onnxruntime, openvino"),
        (("export", "-w", "a", "--runtime", "tvm"), "must be one of onnxruntime, openvino"),
        (("predict", "-w", "a", "b.png", "--runtime", "tvm"), "must be one of onnxruntime"),
        (
            ("prune", *CONFIG, "--dry-run", "--latency-table", "t"),
            "must come with a latency budget",
        ),
        (
            (
                "prune",
                *CONFIG,
                "--dry-run",
                "--sensitivities",
                "s.json",
                "--budget",
                "latency_ms=3",
            ),
            "must come with a table of layers measured on the runtime",
        ),
    ],
)
def test_mistakes(flyweight, curves, arguments, said):
    assert said in flyweight(*arguments).mistake

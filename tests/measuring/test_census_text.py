from flyweight.measuring.census import Census, LayerCensus
from flyweight.measuring.census_text import summary, to_records, to_text

LAYERS = (
    LayerCensus("a.conv2d", "Conv", "int8", ""),
    LayerCensus("b.linear", "Gemm", "float32", "its weight 'b' is not quantized"),
)
CENSUS = Census("onnxruntime", LAYERS, 2, {"HardSigmoid": 2, "Mul": 1}, {"onnxruntime": "1"})


def test_text():
    assert to_text(CENSUS).splitlines() == [
        "1 of 2 layers run on integers in ONNX Runtime",
        "2 float islands between integer layers; operations in them: HardSigmoid 2, Mul 1",
        "",
        "layer     kind  precision  why not integer",
        "a.conv2d  Conv  int8",
        "b.linear  Gemm  float32    its weight 'b' is not quantized",
    ]


def test_one_layer_and_none():
    assert summary(Census("openvino", LAYERS[:1])) == "1 of 1 layer runs on integers in OpenVINO"
    assert to_text(Census("openvino", ())).splitlines() == [
        "0 of 0 layers run on integers in OpenVINO",
        "no float islands between integer layers",
    ]


def test_records():
    found = to_records(CENSUS)
    assert found["layers"][1] == {
        "name": "b.linear",
        "kind": "Gemm",
        "precision": "float32",
        "reason": "its weight 'b' is not quantized",
    }
    assert (found["integer_layers"], found["float_islands"]) == (1, 2)
    assert found["island_operations"] == {"HardSigmoid": 2, "Mul": 1}

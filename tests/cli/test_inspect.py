SMALL = ("-o", "width=0.1", "input_size=64")


def test_models(flyweight):
    answer = flyweight("models", "--json")
    assert answer.json["models"]["yolov3_mobilenet_v1"]["task"] == "detect"
    assert "yolov3_mobilenet_v1_voc" in answer.json["configs"]
    assert answer.err == ""
    text = flyweight("models").out
    assert "yolov3_mobilenet_v1  (detect)" in text
    assert "\n  demo_digits" in text


def test_print_params_as_the_originals_did(flyweight):
    answer = flyweight("prune", "-c", "./configs/yolov3_mobilenet_v1_voc.yml", "--print_params")
    lines = answer.out.splitlines()
    assert "parameter name: yolo_block.0.0.0.conv.weight\tshape: (512, 1024, 1, 1)" in lines
    assert "parameter name: backbone.conv1.conv.weight\tshape: (32, 3, 3, 3)" in lines
    assert answer.err == ""


def test_params(flyweight):
    answer = flyweight("params", "-c", "demo_digits", *SMALL)
    assert "yolo_block.0.0.0.conv.weight  48 channels" in answer.out
    assert "frozen:" in answer.out
    assert "groups, " in answer.out.splitlines()[-1]
    found = flyweight("params", "-c", "demo_digits", *SMALL, "--json").json
    group = found["groups"]["yolo_block.0.0.0.conv.weight"]
    assert (group["channels"], group["prunable"], group["reason"]) == (48, True, None)
    assert ["yolo_block.0.0.0.conv.weight", 0, "produces"] in group["members"]
    assert found["parameters"]["yolo_block.0.0.0.conv.weight"] == [48, 104, 1, 1]
    frozen = [group for group in found["groups"].values() if not group["prunable"]]
    assert frozen
    assert all(group["reason"] for group in frozen)

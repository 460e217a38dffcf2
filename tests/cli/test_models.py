def test_models(flyweight):
    answer = flyweight("models", "--json")
    assert answer.json["models"]["yolov3_mobilenet_v1"]["task"] == "detect"
    assert answer.json["configs"]["yolov3_mobilenet_v1_voc"] == {
        "task": "detect",
        "data": "voc, 20 classes (dataset/voc)",
        "input_size": "608 x 608",
    }
    assert answer.json["configs"]["classify_quick"]["task"] == "classify"
    assert "generated: 1,200 images" in answer.json["configs"]["classify_quick"]["data"]
    assert answer.json["configs"]["lraspp_cityscapes"]["input_size"] == "1024 x 2048"
    assert answer.err == ""
    text = flyweight("models").out
    assert "yolov3_mobilenet_v1  (detect)" in text
    assert "\n  demo_digits" in text

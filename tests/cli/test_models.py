def test_models(flyweight):
    answer = flyweight("models", "--json")
    assert answer.json["models"]["yolov3_mobilenet_v1"]["task"] == "detect"
    assert "yolov3_mobilenet_v1_voc" in answer.json["configs"]
    assert answer.err == ""
    text = flyweight("models").out
    assert "yolov3_mobilenet_v1  (detect)" in text
    assert "\n  demo_digits" in text

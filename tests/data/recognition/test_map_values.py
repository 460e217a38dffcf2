from flyweight.data.recognition.map_values import meaning_of, values_in


def test_values_of_all_files(plant):
    root = plant({"a.png": [0, 3], "b.png": [255]})
    assert values_in([root / "a.png", root / "b.png"]) == (0, 3, 255)


def test_two_values_are_background_and_object():
    assert meaning_of((0, 1), None)[0] == {"labels": ("background", "object")}
    settings, notes = meaning_of((0, 255), None)
    assert settings == {"labels": ("background", "object"), "values": {0: 0, 255: 1}}
    assert len(notes) == 2


def test_classes_are_numbered_and_255_is_ignored():
    assert meaning_of((0, 2, 255), None)[0] == {"labels": ("class_0", "class_1", "class_2")}


def test_spread_values_are_classes_in_order():
    settings, _ = meaning_of((0, 85, 170, 255), None)
    assert settings["values"] == {0: 0, 85: 1, 170: 2, 255: 3}
    assert len(settings["labels"]) == 4


def test_listed_classes():
    assert meaning_of((0, 1, 255), ("a", "b")) == ({}, ())
    assert meaning_of((0, 255), ("a", "b"))[0] == {"values": {0: 0, 255: 1}}
    assert meaning_of((0, 7), ("a", "b", "c")) == ({}, ())  # The check names 7.

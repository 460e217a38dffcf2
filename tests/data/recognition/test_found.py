from flyweight.data.recognition.found import of_splits


def test_splits_go_into_the_settings():
    found = of_splits(
        {"format": "voc"}, {"train": "a.txt", "val": "b.txt", "test": "c.txt"}, ("n",)
    )
    assert found.settings == {"format": "voc", "train": "a.txt", "val": "b.txt"}
    assert (found.format, found.others, found.notes) == ("voc", ("test",), ("n",))


def test_a_single_split_leaves_val_open():
    assert "val" not in of_splits({"format": "voc"}, {"train": "a.txt"}).settings
    assert of_splits({"format": "voc"}, {}) is None

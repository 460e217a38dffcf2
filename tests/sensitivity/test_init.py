from flyweight import sensitivity


def test_every_name_is_there():
    assert sensitivity.__all__ == sorted(sensitivity.__all__, key=lambda n: (not n.isupper(), n))
    assert all(hasattr(sensitivity, name) for name in sensitivity.__all__)

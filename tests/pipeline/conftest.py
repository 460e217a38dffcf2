"""What the tests of the pipeline share."""

from tests.tasks.conftest import make_prediction  # noqa: F401 - a fixture

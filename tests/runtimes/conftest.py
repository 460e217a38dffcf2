"""Small exported files and their descriptions."""

from tests.exporting.conftest import card, small_net  # noqa: F401 - fixtures
from tests.measuring.conftest import make_chain  # noqa: F401 - fixtures

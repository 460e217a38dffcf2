"""The small models of tests/pruning, for plans of the same networks."""

from tests.pruning.conftest import graph, images, model, transformer_graph  # noqa: F401 - fixtures

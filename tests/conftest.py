"""What every test may use."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("flyweight", deadline=None, derandomize=True)
settings.load_profile("flyweight")

_DATA = Path(
    os.environ.get("FLYWEIGHT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect, with a notice, what needs real pictures where there are none."""
    if _DATA.is_dir():
        return
    wanting = [item for item in items if item.get_closest_marker("data")]
    if wanting:
        items[:] = [item for item in items if not item.get_closest_marker("data")]
        config.hook.pytest_deselected(items=wanting)
        config.stash[_NOTICE] = (
            f"{len(wanting)} tests need real data sets and were deselected: "
            f"'{_DATA}' is no folder. Set FLYWEIGHT_DATA to run them."
        )


_NOTICE = pytest.StashKey[str]()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was deselected."""
    notice = config.stash.get(_NOTICE, "")
    if notice:
        terminalreporter.write_line(notice)


@pytest.fixture
def data_root() -> Path:
    """The folder of real data sets."""
    return _DATA

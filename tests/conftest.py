"""What every test may use."""

import os
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from tests.browser import CHROMIUM

# One thread in every test process, and in every process that a test starts: pytest runs as many
# processes as there are processors, and threads of OpenMP that wait for each other's processors
# spin. Set before anything imports torch, which reads them once. A value from outside is kept.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
for _name, _value in ONE_THREAD.items():
    os.environ.setdefault(_name, _value)

settings.register_profile("flyweight", deadline=None, derandomize=True)
settings.load_profile("flyweight")

# Digests of files that tests make are of no use to the user.
# A shell that starts the tests in the background may have these ignored; tests send them.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGTERM, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _handler)
os.environ["FLYWEIGHT_IGNORE_LOAD"] = "1"  # Tests compare what is printed, on any machine.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="flyweight-cache-")

_DATA = Path(
    os.environ.get("FLYWEIGHT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect, with a notice, what needs real images or a browser where there are none."""
    absent = {}
    if not _DATA.is_dir():
        absent["data"] = f"real data sets: '{_DATA}' is no folder. Set FLYWEIGHT_DATA"
    if CHROMIUM is None:
        absent["browser"] = "Chromium: none is in PATH. Install one, or set CHROMIUM"
    notices = []
    for mark, need in absent.items():
        wanting = [item for item in items if item.get_closest_marker(mark)]
        if wanting:
            items[:] = [item for item in items if not item.get_closest_marker(mark)]
            config.hook.pytest_deselected(items=wanting)
            notices.append(f"{len(wanting)} tests were deselected, which need {need} to run them.")
    config.stash[_NOTICE] = "\n".join(notices)


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


class RecordedProgress:
    """Progress that keeps every report in `events`, in order."""

    def __init__(self) -> None:
        self.events: list[tuple] = []

    def start(self, label, total=None, *, done=0, lines_every=None):
        """Record the begin of a task."""
        self.events.append(("start", label, total, done))
        return _RecordedTask(label, self.events)

    def note(self, text):
        """Record a note."""
        self.events.append(("note", text))

    @property
    def notes(self) -> list[str]:
        """The texts of all notes."""
        return [event[1] for event in self.events if event[0] == "note"]


class _RecordedTask:
    def __init__(self, label, events):
        self.label, self.events = label, events

    def update(self, done, numbers=None):
        self.events.append(("update", self.label, done, dict(numbers or {})))

    def finish(self):
        self.events.append(("finish", self.label))


@pytest.fixture
def recorded_progress() -> RecordedProgress:
    """Progress that a test can look at."""
    return RecordedProgress()

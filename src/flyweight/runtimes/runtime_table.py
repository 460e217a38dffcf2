"""Table of runtimes by name.

Each runtime needs a heavy package, so its file is imported when its name is first used. A new
runtime is one row here and one file beside it; `tests/runtimes/test_runtime_table.py` runs every
row.
"""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from flyweight.errors import ConfigError, nearest
from flyweight.on_demand import load
from flyweight.runtimes.protocol import Runtime

DEFAULT_RUNTIME = "onnxruntime"


@dataclass(frozen=True)
class RuntimeEntry:
    """A row of the table.

    Attributes:
        title: The runtime's name as its authors write it.
        package: The package that it needs; module and distribution have this name.
        install: Command that installs it.
        implementation: Reference of the class, as `on_demand.load` takes it.
        may_end_process: Whether a version of it is known to end its process, without an exception,
            where it loads certain files.
    """

    title: str
    package: str
    install: str
    implementation: str
    may_end_process: bool = False


RUNTIMES = {
    "onnxruntime": RuntimeEntry(
        "ONNX Runtime",
        "onnxruntime",
        "pip install onnxruntime",
        "flyweight.runtimes.onnxruntime_backend:OnnxRuntime",
    ),
    "openvino": RuntimeEntry(
        "OpenVINO",
        "openvino",
        "pip install 'flyweight[openvino]'",
        "flyweight.runtimes.openvino_backend:OpenVino",
        may_end_process=True,  # 2026.4: a segmentation fault for some quantized concatenations.
    ),
}


def runtime_entry(name: str) -> RuntimeEntry:
    """Return the row of a name.

    Raises:
        ConfigError: There is no runtime of that name.
    """
    if name not in RUNTIMES:
        raise ConfigError(
            f"A runtime must be one of {', '.join(RUNTIMES)}. Received: '{name}'. "
            f"{nearest(name, RUNTIMES)}"
        )
    return RUNTIMES[name]


def require_installed(name: str) -> RuntimeEntry:
    """Return the row of a runtime whose package is installed, without importing it.

    Raises:
        ConfigError: There is no runtime of that name, or its package is not installed.
    """
    entry = runtime_entry(name)
    if find_spec(entry.package) is None:
        raise _not_installed(entry, f"no package named '{entry.package}'")
    return entry


def runtime_by_name(name: str) -> Runtime:
    """Return the runtime of a name.

    Raises:
        ConfigError: There is no runtime of that name, or its package cannot be imported.
    """
    entry = runtime_entry(name)
    try:
        runtime: Runtime = load(entry.implementation)()
    except ImportError as error:
        raise _not_installed(entry, str(error)) from error
    return runtime


def installed_version(name: str) -> str:
    """Return a runtime's name and installed version, without importing it.

    Raises:
        ConfigError: There is no runtime of that name, or it is not installed.
    """
    entry = runtime_entry(name)
    try:
        return f"{name} {version(entry.package)}"
    except PackageNotFoundError as error:
        raise _not_installed(entry, f"no package named '{entry.package}'") from error


def _not_installed(entry: RuntimeEntry, reason: str) -> ConfigError:
    return ConfigError(
        f"{entry.title} must be installed to run exported files on it. Received: {reason}. "
        f"Install it with: {entry.install}"
    )

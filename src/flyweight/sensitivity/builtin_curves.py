"""Built-in curves (`DEFAULT`): scans that are part of flyweight, to start without a scan.

There is one file per network under `builtin/`, written by `flyweight sensitivity` with the network
trained on the data that the file names. Layers are identified by name, so the number of classes
does not matter. The data do matter, and a note with every use names them.
"""

from pathlib import Path

from flyweight.errors import PlanError, nearest

_FOLDER = Path(__file__).parent / "builtin"


def builtin_names() -> list[str]:
    """Return the names of the networks that have built-in curves."""
    return sorted(path.stem.replace("--", "/") for path in _FOLDER.glob("*.json"))


def builtin_curves(model: str) -> Path:
    """Return the file of a network's built-in curves.

    Args:
        model: The network's name in the zoo.

    Raises:
        PlanError: The network has no built-in curves.
    """
    path = _FOLDER / f"{model.replace('/', '--')}.json"
    if not path.is_file():
        known = builtin_names()
        raise PlanError(
            f"DEFAULT needs a network that has built-in curves. Received '{model}', which has "
            f"none. {nearest(model, known)} Networks with curves: {', '.join(known)}. Scan your "
            "own network, which is more accurate in any case, with: flyweight sensitivity"
        )
    return path

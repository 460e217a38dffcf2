"""`DEFAULT`: curves that come with flyweight, for those who have no time for a scan of their own.

A file per network under `builtin/`, made by `flyweight sensitivity` with the network trained on the
data that the file names. Layers go by their names, so the number of classes does not matter; the
data do, and whoever uses these files is told.
"""

from pathlib import Path

from flyweight.errors import PlanError, nearest

_FOLDER = Path(__file__).parent / "builtin"


def builtin_names() -> list[str]:
    """Return the networks that there are curves of."""
    return sorted(path.stem.replace("--", "/") for path in _FOLDER.glob("*.json"))


def builtin_curves(model: str) -> Path:
    """Return the file of a network's curves.

    Args:
        model: Its name in the zoo.

    Raises:
        PlanError: There is none.
    """
    path = _FOLDER / f"{model.replace('/', '--')}.json"
    if not path.is_file():
        known = builtin_names()
        raise PlanError(
            f"DEFAULT curves must be there for the network. Received '{model}', of which there are "
            f"none. {nearest(model, known)} There are: {', '.join(known)}. Make your own, which "
            "are better anyway, with: flyweight sensitivity"
        )
    return path

"""Reading of configs: by built-in name or from a YAML file, with overrides, strictly."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from flyweight.config.old_keys import RENAMED_KEYS, current_key, in_our_words
from flyweight.config.strict_yaml import load_yaml
from flyweight.errors import ConfigError, PlanError, nearest
from flyweight.on_demand import load
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import read_text
from flyweight.untrusted.yaml_values import parse_yaml

if TYPE_CHECKING:
    from flyweight.config.settings import Config

# Loaded once a config has been found and read: the message about an unknown name does not wait.
_CONFIG = "flyweight.config.settings:Config"

# Values that stay text even where YAML reads a number or a date.
_TEXTS = frozenset(
    {
        *("weights", "pretrain_weights", "save_dir", "data.root", "data.train", "data.val"),
        *("prune.scan", "prune.latency_table", "distill.precision"),
        *("distill.teacher", "distill.teacher_config", "distill.teacher_pretrained"),
        *("train.precision", "finetune.precision"),
    }
)


def known_configs() -> tuple[str, ...]:
    """Return the names of the built-in configs."""
    folder = resources.files("flyweight.config.presets")
    names = (entry.name for entry in folder.iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def load_config(name: str, overrides: Sequence[str] = ()) -> "tuple[str, Config]":
    """Read a config by name or path and apply `key=value` overrides.

    Args:
        name: A name of `known_configs`, a path to a YAML file, or the originals' spelling
            `configs/NAME.yml`.
        overrides: As after `-o`: dotted keys, values in YAML, `train.steps=100`.

    Returns:
        The config's name (the file's without its ending) and the config.

    Raises:
        ConfigError: There is no such config; or the YAML, a key or a value is invalid. The error
            message names the key and the nearest valid one.
    """
    text, label = _read(name)
    values = load_yaml(text, name)
    if not isinstance(values, dict):
        raise ConfigError(
            f"A config must be a mapping of keys. Received '{name}' without any. "
            f"Start from a built-in one: {', '.join(known_configs())}."
        )
    values = _renamed(values, name)
    for key, value in map(_pair, overrides):
        _put(values, key, value)
    must, remedy = "A config's values must be valid.", "Correct them there, or with -o."
    with refusing(ConfigError, must, f"'{name}'", remedy):
        try:
            return label, load(_CONFIG).model_validate(_renamed(values, name))
        except PlanError as error:
            raise ConfigError(f"{error} Where: section 'prune' of '{name}', or -o.") from error
        except ValidationError as error:
            raise ConfigError(_message(name, error)) from error


def _renamed(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the values with the names that keys of earlier versions have today."""
    found = dict(values)
    for old, new in RENAMED_KEYS.items():
        section, _, last = old.partition(".")
        inner, current = found.get(section), new.partition(".")[2]
        if not isinstance(inner, dict) or last not in inner:
            continue
        if current in inner:
            raise ConfigError(
                f"A config must say every key once. Received '{old}' and '{new}', two names of one "
                f"key, in '{name}'. Remove '{old}'."
            )
        found[section] = {current if key == last else key: inner[key] for key in inner}
    return found


def _read(name: str) -> tuple[str, str]:
    path = Path(name)
    if path.is_file():
        must, remedy = "A config must be readable text.", "Save it as UTF-8."
        with refusing(ConfigError, must, f"'{name}'", remedy):
            return read_text(path), path.stem
    stem = (
        path.stem
        if path.suffix in {".yml", ".yaml"} and path.parent.name in {"", "configs"}
        else name
    )
    if stem in known_configs():
        entry = resources.files("flyweight.config.presets") / f"{stem}.yaml"
        return entry.read_text(encoding="utf-8"), stem
    raise ConfigError(
        f"A config must be a file or a built-in name. Received '{name}'. "
        f"{nearest(stem, known_configs())} List them with: flyweight models"
    )


def touched(overrides: Sequence[str]) -> frozenset[str]:
    """Return the top-level keys that `key=value` overrides change.

    Raises:
        ConfigError: An override is invalid.

    Example:
        >>> sorted(touched(["input_size=320", "max_iters=100"]))
        ['input_size', 'train']
    """
    return frozenset(key.split(".")[0] for key, _ in map(_pair, overrides))


def _pair(override: str) -> tuple[str, Any]:
    """Return the current key of an override, and its value."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            f"An override must read key=value. Received '{override}'. Example: -o train.steps=100"
        )
    key = current_key(key.strip())
    must, remedy = "An override's value must be YAML.", "Quote it in the shell."
    with refusing(ConfigError, must, f"'{override:.120}'", remedy):
        value = parse_yaml(text)
    if key == "train.accelerator" and isinstance(value, bool):
        value = "auto" if value else "cpu"
    return key, text.strip("\"'") if key in _TEXTS and value is not None else value


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    place = values
    for parent in parents:
        inner = place.get(parent)
        # A copy, because one mapping with an anchor may be in several places.
        place[parent] = dict(inner) if isinstance(inner, dict) else {}
        place = place[parent]
    place[last] = value


def _message(name: str, error: ValidationError) -> str:
    """Return the first of pydantic's errors as one line for the user."""
    first = error.errors()[0]
    place = _place(first["loc"])
    key = ".".join(place)
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        siblings = [".".join([*place[:-1], other]) for other in _keys_at(place[:-1])]
        hint = in_our_words(key) or nearest(key, siblings)
        return f"A config key must be a known one. Received '{key}' in '{name}'. {hint}{more}"
    if first["type"] == "missing":
        return (
            f"A config must have the key '{key}'. Received '{name}' without it. "
            f"Add it there, or with: -o {key}=VALUE{more}"
        )
    reason = first["msg"].removeprefix("Value error, ").rstrip(".")
    value = first.get("input")
    shown = f"'{key}'" if isinstance(value, Mapping) else f"{value!r:.120} for '{key}'"
    return (
        f"A config's values must be valid. Received {shown} in '{name}': {reason}. "
        f"Correct it there, or with -o.{more}"
    )


def _place(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys of an error's place, without the names of types that pydantic adds."""
    place: list[str] = []
    for part in location:
        if isinstance(part, str) and not _keys_at(place):
            break
        place.append(str(part))
    return place


def _keys_at(place: Sequence[str]) -> list[str]:
    model: Any = load(_CONFIG)
    for part in place:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        model = _model_in(annotation)
        if model is None:
            return []
    return list(model.model_fields)


def _model_in(annotation: Any) -> Any:
    options = [annotation, *getattr(annotation, "__args__", ())]
    models = [option for option in options if isinstance(option, type)]
    return next((option for option in models if issubclass(option, BaseModel)), None)

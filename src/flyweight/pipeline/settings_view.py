"""View of a config through which a stage reads the settings that it declares, and no others.

What a stage does not declare, its digest does not cover. If it could be read all the same, a chain
would skip a stage whose result had changed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from flyweight.config.settings import Config


class UndeclaredSettingError(Exception):
    """A stage reads a setting that it does not declare. This is a defect of the stage."""


@dataclass(frozen=True)
class Leaf:
    """One setting of a config.

    Attributes:
        value: As JSON.
        is_default: Whether it is what a config has that does not name it.
    """

    value: Any
    is_default: bool


def view_of(config: Config, declared: Iterable[str], reader: str) -> Config:
    """Return a config that refuses every setting but the declared ones.

    Properties of the config, such as `preprocessing`, work where the settings that they read are
    declared.

    Args:
        config: What is read.
        declared: Dotted paths. One that names a section gives the whole section.
        reader: Who reads, for the error message.

    Raises:
        UndeclaredSettingError: When another setting is read.
    """
    return cast(Config, _View(config, frozenset(declared), "", reader))


class _View:
    """A restricted section of a config; see `view_of`."""

    def __init__(self, section: BaseModel, declared: frozenset[str], place: str, by: str) -> None:
        self.__dict__.update(_section=section, _declared=declared, _place=place, _by=by)

    def __getattr__(self, name: str) -> Any:
        section, declared = self.__dict__["_section"], self.__dict__["_declared"]
        kind = type(section)
        if name not in kind.model_fields:
            found = getattr(kind, name, None)
            if isinstance(found, property) and found.fget is not None:
                return found.fget(self)
            raise AttributeError(f"a view of settings has no '{name}'")
        if name in declared:
            return getattr(section, name)
        inner = frozenset(path[len(name) + 1 :] for path in declared if path.startswith(f"{name}."))
        place = f"{self.__dict__['_place']}{name}"
        if not inner:
            raise UndeclaredSettingError(
                f"A stage must declare every setting that it reads. Received '{place}', which "
                f"the stage '{self.__dict__['_by']}' does not declare. Add it to the stage's "
                "settings."
            )
        value = getattr(section, name)
        if not isinstance(value, BaseModel):
            return value
        return _View(value, inner, f"{place}.", self.__dict__["_by"])

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("settings are read only")

    def __reduce__(self) -> Any:
        # Training in several processes sends it to them.
        state = self.__dict__
        return _View, (state["_section"], state["_declared"], state["_place"], state["_by"])


def leaves_of(config: BaseModel, paths: Iterable[str]) -> dict[str, Leaf]:
    """Return the settings below dotted paths, by their own dotted paths.

    A section is followed to its single settings; lists and mappings are one setting each.

    Args:
        config: What is read.
        paths: Settings or sections.
    """
    found: dict[str, Leaf] = {}
    for path in paths:
        section: Any = config
        *parents, last = path.split(".")
        for parent in parents:
            section = getattr(section, parent) if section is not None else None
        if section is not None:
            found.update(_leaves(section, last, path))
    return found


def _leaves(section: BaseModel, name: str, path: str) -> Mapping[str, Leaf]:
    value = getattr(section, name)
    if isinstance(value, BaseModel):
        inner = [_leaves(value, key, f"{path}.{key}") for key in type(value).model_fields]
        return {key: leaf for leaves in inner for key, leaf in leaves.items()}
    return {
        path: Leaf(
            to_jsonable_python(value), value == _default_of(type(section).model_fields[name])
        )
    }


def _default_of(field: FieldInfo) -> Any:
    default = field.get_default(call_default_factory=True)
    return object() if default is PydanticUndefined else default

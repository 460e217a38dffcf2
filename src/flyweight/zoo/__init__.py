"""Networks by name: the function `create` and its table `SPECS`."""

from flyweight.zoo.sources.libraries import is_library_name
from flyweight.zoo.sources.own import is_own_name
from flyweight.zoo.spec import ModelSpec
from flyweight.zoo.specs import SPECS, create, spec_of

__all__ = ["SPECS", "ModelSpec", "create", "is_library_name", "is_own_name", "spec_of"]

"""Networks by name: `create`, and the table it reads, `SPECS`."""

from flyweight.zoo.spec import ModelSpec
from flyweight.zoo.specs import SPECS, create, spec_of

__all__ = ["SPECS", "ModelSpec", "create", "spec_of"]

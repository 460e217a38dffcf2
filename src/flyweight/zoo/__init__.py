"""Networks by name: `create`, and the table it reads, `SPECS`."""

from flyweight.zoo.specs import SPECS, ModelSpec, create, spec_of

__all__ = ["SPECS", "ModelSpec", "create", "spec_of"]

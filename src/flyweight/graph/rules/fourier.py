"""Rules for Fourier transforms, and for numbers that have a real and an imaginary part."""

from flyweight.graph.identity import Field, Flow
from flyweight.graph.step import Step


def transformed(step: Step) -> Flow:
    """A Fourier transform along some axes; channels on the others pass."""
    source = step.flow("self")
    axes = {axis % len(source.shape) for axis in step.arguments["dim"]}
    passing = []
    for found in source.fields:
        if axes & set(found.axes):
            # Every result depends on all of them, and on how many there are.
            step.freeze(found.ids, "passes an operation that has no rule")
        else:
            passing.append(found)
    return step.result(*passing)


def as_complex(step: Step) -> Flow:
    """The last axis holds real and imaginary parts and is removed."""
    source = step.flow("self")
    last = len(source.shape) - 1
    fields = []
    for found in source.fields:
        if last not in found.axes:
            fields.append(found)
        elif len(found.axes) > 1:
            rest = (axis for axis in found.axes if axis != last)
            fields.append(step.identities.collapse(found, *rest))
        else:
            step.freeze(found.ids, "is the real and the imaginary part of one number")
    return step.result(*fields)


def as_real(step: Step) -> Flow:
    """An axis of two is added for the real and the imaginary part."""
    return step.result(*(Field(found.axes, found.ids) for found in step.flow("self").fields))

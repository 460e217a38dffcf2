"""Calls of a run that something depends on.

Code computes values that nobody takes: `nn.MultiheadAttention` averages its weights over heads for
callers that ask for them. What such a call computes across channels makes no cut inexact.
"""

from flyweight.graph.program import Call, Run, numbers_in


def live_calls(run: Run) -> list[Call]:
    """Return the calls that the outputs, the inputs or the code depend on, in order.

    A call that writes in place or returns no tensor counts: what it changes may be read under
    another number, and a value may decide what the code does next.

    Args:
        run: With all that it returned and left in its inputs.
    """
    needed = {*numbers_in(run.outputs), *numbers_in(run.left)}
    live = []
    for call in reversed(run.calls):
        if not call.makes or call.func._schema.is_mutable or not needed.isdisjoint(call.makes):
            live.append(call)
            needed.update(call.reads)
    return live[::-1]

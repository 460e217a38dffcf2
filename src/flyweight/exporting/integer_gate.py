"""Gate after the export of a quantized network: the runtime must do what the plan says."""

from flyweight.errors import ExportError, PlanError, counted
from flyweight.measuring.census import Census
from flyweight.quantization.quantization_plan import QuantizationPlan
from flyweight.runtimes.runtime_table import runtime_entry

_MOST_NAMED = 5


def require_integer(census: Census, plan: QuantizationPlan) -> None:
    """Check that the runtime computes every integer layer of a plan with integers.

    Layers that the exporter dropped, because nothing needs their result, need not be there.

    Args:
        census: Of the exported file.
        plan: Of the network that was exported.

    Raises:
        ExportError: The runtime leaves a layer in float that the plan makes integer.
        PlanError: The census is of another network.
    """
    wanted = {layer.operation for layer in plan.layers.values()}
    found = {layer.name: layer for layer in census.layers}
    known = {*wanted, *plan.floats, *plan.outputs.values()}
    strangers = [name for name in found if name.partition("/")[0] not in known]
    if not wanted <= found.keys() and strangers:
        raise PlanError(
            "A plan and a census must be of one network. Received a plan with "
            f"'{min(wanted - found.keys())}' and a file with '{strangers[0]}'. Take the census of "
            "the file that was exported with this plan."
        )
    left = [one for one in census.layers if one.name in wanted and not one.is_integer]
    if left:
        title = runtime_entry(census.runtime).title
        named = ", ".join(f"'{one.name}' ({one.reason})" for one in left[:_MOST_NAMED])
        more = f" and {len(left) - _MOST_NAMED} more" if len(left) > _MOST_NAMED else ""
        raise ExportError(
            f"{title} must run every integer layer of the plan on integers. Received "
            f"{counted(len(left), 'float layer')}: {named}{more}. Name them in the option to skip, "
            "or use another runtime."
        )

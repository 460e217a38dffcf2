"""Rounding of OpenVINO where it is not that of the file, for networks that shall be equal to it.

It computes a sum together with the convolution before it: it adds the other tensor to the sums of
the convolution and rounds once. A network that rounds before the sum differs by single levels.
Seen with OpenVINO 2026.4; after a LeakyReLU, a sigmoid or a pool it rounds as the file says.

And it adds the zero point before it rounds, in float32, where some bits of a value are lost. Values
inside of an exact network have too few bits to lose one; those of images have not.
"""

from collections.abc import Iterable, Iterator

from torch import Tensor

from flyweight.quantization.grids import Grid
from flyweight.quantization.quantization_plan import QuantizationPlan
from flyweight.quantization.sites import RecordedSites, Site

FUSING = "openvino"
"""Name of the runtime."""
_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")


def with_zero_added(values: Tensor, grid: Grid) -> Tensor:
    """Return values with the bits that are left after the zero point was added to them.

    Args:
        values: Of an input of a network, any shape.
        grid: Of its quantizer; the scale is a power of two, so that nothing else is rounded.
    """
    zero = grid.scale * grid.zero_point
    return (values + zero) - zero


def unrounded_sites(recorded: RecordedSites, plan: QuantizationPlan) -> tuple[str, ...]:
    """Return the sites, one for each sum, whose results OpenVINO does not round.

    Such a site is the end of a convolution, with a normalisation or a ReLU in it, that only the sum
    reads. What else reads the other tensor must come before the sum, because the sum is written in
    its place. Of two such branches it is the later one.

    Args:
        recorded: The sites of the network.
        plan: From `placement.place`, of the same recording.
    """
    return tuple(_Sums(recorded, plan).found())


class _Sums:
    """Finds the branches."""

    def __init__(self, recorded: RecordedSites, plan: QuantizationPlan) -> None:
        self.recorded, self.plan = recorded, plan
        self.maker = {number: site for site in recorded.sites for number in site.makes}
        self.takers: dict[int, list[Site]] = {}
        for site in recorded.sites:
            for number in site.reads:
                self.takers.setdefault(number, []).append(site)
        convolutions = {one.name for one in recorded.sites if one.op in _CONVOLUTIONS}
        self.results = {layer.result for name, layer in plan.layers.items() if name in convolutions}

    def found(self) -> Iterator[str]:
        for site in self.recorded.sites:
            rounded = all(number in self.maker for number in site.reads)
            if site.op != "add" or len(site.reads) != 2 or not rounded:
                continue
            first, second = sorted(site.reads)
            for number, other in ((second, first), (first, second)):
                if self._is_fused(number, other, site):
                    yield self.maker[number].name
                    break

    def _is_fused(self, number: int, other: int, end: Site) -> bool:
        made, taken = self.maker[number], self.plan.outputs
        both = made.name in taken and self.maker[other].name in taken
        if not both or made.operation not in self.results or number in self.recorded.outputs:
            return False
        further = [one for one in self.takers[other] if one is not end]
        alone = self.takers[number] == [end] and other not in self.recorded.outputs
        return alone and self._before(end).issuperset(further)

    def _before(self, end: Site) -> set[Site]:
        """Return the sites that a site depends on."""
        found, open_ones = set[Site](), [end]
        while open_ones:
            for site in self._makers(open_ones.pop().reads):
                if site not in found:
                    found.add(site)
                    open_ones.append(site)
        return found

    def _makers(self, numbers: Iterable[int]) -> list[Site]:
        return [self.maker[number] for number in numbers if number in self.maker]

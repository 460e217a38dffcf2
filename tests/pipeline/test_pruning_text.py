from types import SimpleNamespace

from flyweight.graph import Cost
from flyweight.pipeline.pruning_text import cost_table, odd_widths, plan_notes


def plan_of(notes=(), **groups):
    kept = {
        name: SimpleNamespace(channels=before, keep=range(after))
        for name, (before, after) in groups.items()
    }
    return SimpleNamespace(groups=kept, notes=notes)


def test_the_table_names_widths_and_costs():
    before = Cost(macs=2_000_000_000, params=4_000_000, size_bytes=16 * 2**20, values=4_000_000)
    after = Cost(macs=1_000_000_000, params=3_000_000, size_bytes=12 * 2**20, values=3_000_000)
    lines = cost_table(before, after, plan_of(a=(64, 32), b=(16, 8))).splitlines()
    assert lines[:3] == ["group  before  after", "a          64     32", "b          16      8"]
    assert lines[5].split() == ["GMACs", "2.0000", "1.0000", "-50.00", "%"]
    assert lines[-1] == "FLOPs -0.5; total FLOPs: 2000000000.0; pruned FLOPs: 1000000000.0"


def test_widths_that_runtimes_compute_slowly_get_a_hint():
    odd = plan_of(("frozen",), a=(64, 31), b=(64, 32), c=(64, 40))
    assert odd_widths(odd) == 1
    first, second = plan_notes(odd)
    assert first == "note: frozen"
    assert second.startswith("hint: 1 of 3 pruned layers keep")
    assert plan_notes(plan_of(a=(64, 31), b=(64, 32), c=(64, 40), d=(8, 0))) == ()

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from flyweight.config.budget import Budget
from flyweight.config.pruning import PruneConfig
from flyweight.errors import PlanError


def test_a_section_dumps_as_yaml_has_it():
    section = PruneConfig(scan="s.json", budget="macs=0.5")
    assert section.budget == Budget(macs=0.5)
    found = section.model_dump(mode="json")
    assert (found["scan"], found["budget"]) == ("s.json", {"macs": 0.5})
    assert PruneConfig.model_validate(found) == section
    assert PruneConfig().model_dump()["budget"] is None


def test_python_gets_the_error_of_the_cut_itself():
    with pytest.raises(PlanError, match="Received macs=2"):
        PruneConfig(ranking="l1_norm", budget={"macs": 2})


def test_a_ranking_names_the_criterion_itself():
    assert PruneConfig(ranking="taylor", budget="macs=0.5").cut.criterion == "taylor"
    alone = PruneConfig(ranking="taylor", budget="macs=0.5")
    assert PruneConfig.model_validate(alone.model_dump()) == alone
    same = PruneConfig(ranking="taylor", budget="macs=0.5", criterion="taylor")
    assert same.cut.ranking == "taylor"
    with pytest.raises(PlanError, match="Leave criterion out"):
        PruneConfig(ranking="taylor", budget="macs=0.5", criterion="l1_norm")


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2000),
    st.floats(),
    st.sampled_from(["", "all", "a", "l1_norm", "taylor", "first", "macs=0.5", "latency_ms=3"]),
    st.lists(st.sampled_from(["a", "b", "all", 0.5, 0.0, None]), max_size=3),
    st.dictionaries(
        st.sampled_from(["macs", "params", "latency_ms", "mac", "", 3]),
        st.sampled_from([0.5, 1, 5000, "2e6", None, [1]]),
        max_size=2,
    ),
)


@given(st.dictionaries(st.sampled_from([*PruneConfig.model_fields]), VALUES, max_size=5))
def test_any_section_is_a_cut_or_no_cut_or_refused(values):
    try:
        found = PruneConfig.model_validate(values).cut
    except (PlanError, ValidationError) as error:
        found = "" if isinstance(error, ValidationError) else str(error)
    assert "\n" not in str(found)
    assert hash(found) is not None

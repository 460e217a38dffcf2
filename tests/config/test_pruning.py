import pytest

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

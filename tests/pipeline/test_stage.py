import csv
import json
import shutil
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
from pydantic import BaseModel

from flyweight.config.data import DataConfig
from flyweight.config.pruning import PruneConfig
from flyweight.config.reading import load_config
from flyweight.config.settings import Config
from flyweight.data.layouts.voc_write import write_voc
from flyweight.data.loading import open_set
from flyweight.digests import digest_of_value
from flyweight.errors import MeasureError
from flyweight.pipeline.chain import CHAIN
from flyweight.pipeline.demo import demo_chain
from flyweight.pipeline.inputs import Data
from flyweight.pipeline.settings_view import UndeclaredSettingError, leaves_of
from flyweight.pipeline.stage import Inputs, Stage, by_hand, complete, made_from
from flyweight.pipeline.stages import bench, layers
from flyweight.progress import Silent
from flyweight.workspace import Workspace, differences

DEMO = demo_chain("digit_detector", ())[2]
with Path(__file__).with_name("settings_and_stages.csv").open(newline="", encoding="utf-8") as file:
    TABLE = list(csv.DictReader(file))

SMALL = ("width=0.1", "input_size=64", "data.size=64", "data.train_count=4", "data.val_count=2")
NO_CUT = ("prune.params=[]", "prune.ratios=[]")
SCAN = (*NO_CUT, "prune.scan=this_run")
# The configs that the table's first column names.
CONFIGS = {
    "digits": ("demo_digits", SMALL),
    "as_trained": ("demo_digits", (*SMALL, "finetune=null")),
    "classes": ("classify_quick", (*SMALL[2:], "prune.params=[all]", "prune.ratios=[0.5]")),
    "voc": ("demo_digits", (*SMALL, "data.format=voc", "data.root=$SET")),
    "scan": ("demo_digits", (*SMALL, *SCAN, "prune.max_drop=0.05")),
    "file": ("demo_digits", (*SMALL, *NO_CUT, "prune.scan=$SCAN", "prune.max_drop=0.05")),
    "ranking": ("demo_digits", (*SMALL, *NO_CUT, "prune.ranking=l1_norm", "prune.budget=macs=0.5")),
    "latency": (
        "demo_digits",
        (*SMALL, *SCAN, "prune.budget=latency_ms=3", "prune.latency_table=this_run"),
    ),
}


def model_in(annotation):
    options = [annotation, *getattr(annotation, "__args__", ())]
    types = [option for option in options if isinstance(option, type)]
    return next((option for option in types if issubclass(option, BaseModel)), None)


def leaves_in(model, place=""):
    for name, field in model.model_fields.items():
        inner = model_in(field.annotation)
        yield from leaves_in(inner, f"{place}{name}.") if inner else [f"{place}{name}"]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The files that the table names, as `$NAME`."""
    root = tmp_path_factory.mktemp("places")
    digits = DataConfig(format="digits", size=64, train_count=3, val_count=2)
    for split in ("train", "val"):
        write_voc(open_set(digits, split), root / "set")
    shutil.copytree(root / "set", root / "copy")
    for name, text in (("scan", "1"), ("same", "1"), ("other", "2")):
        (root / f"{name}.json").write_text(text)
    training = load_config("demo_digits", SMALL)[1].train.model_dump(mode="json")
    return {
        "$SET": str(root / "set"),
        "$COPY": str(root / "copy"),
        "$SCAN": str(root / "scan.json"),
        "$SAME_SCAN": str(root / "same.json"),
        "$OTHER_SCAN": str(root / "other.json"),
        "$TABLE": str(root / "scan.json"),
        "$TRAIN": json.dumps(training),
    }


@cache
def splits(data):
    config = DataConfig.model_validate_json(data)
    return Data(open_set(config, "train"), open_set(config, "val"))


@pytest.fixture(scope="module")
def read(places):
    """Return a config of the table with changes."""

    @cache
    def config_of(name, change=""):
        preset, overrides = CONFIGS[name]
        # Spaces within brackets belong to a value.
        words = change.replace(", ", ",").replace(": ", ":\0").split()
        told = [*overrides, *(word.replace("\0", " ") for word in words)]
        return load_config(preset, [filled(text, places) for text in told])[1]

    return config_of


@pytest.fixture(scope="module")
def facts_of(read, tmp_path_factory):
    """Return what every stage is made from, for a config of the table with changes."""
    folder = tmp_path_factory.mktemp("run")
    return cache(lambda name, change="": facts(read(name, change), folder))


@pytest.fixture(scope="module", autouse=True)
def one_machine():
    with pytest.MonkeyPatch.context() as patched:
        for module in (bench, layers):
            patched.setattr(module, "hardware", lambda: "a processor")
        yield


def filled(text, places):
    key, _, value = text.partition("=")
    return f"{key}={places.get(value, value)}"


def facts(config, folder):
    """Return what every stage is made from, as if every result were a digest of that."""
    config = complete(config)
    inputs = Inputs("run", splits(config.data.model_dump_json()))
    found, earlier = {}, {}
    for stage in CHAIN:
        if not stage.wanted(config):
            continue
        told = replace(inputs, options=stage.options)
        found[stage.name] = made_from(stage, config, told, folder, earlier)
        digest = digest_of_value(dict(found[stage.name].values))
        earlier[stage.name] = Every(digest)
    return found


class Every(dict):
    """A mapping that has one value under every name."""

    def __init__(self, value):
        super().__init__(value=value)

    def __missing__(self, key):
        return self["value"]


def runs_again(before, after):
    """Return the stages that a chain with notes of `before` runs for `after`."""
    return {
        name
        for name, wanted in after.items()
        if name not in before or differences(before[name].values, wanted)
    }


@pytest.mark.parametrize(
    "row", TABLE, ids=[f"{row['config']}-{row['setting']}-{n}" for n, row in enumerate(TABLE)]
)
def test_a_changed_setting_runs_exactly_these_stages_again(facts_of, row):
    plain, changed = facts_of(row["config"]), facts_of(row["config"], row["change"])
    expected = set(row["runs_again"].split())
    assert runs_again(plain, changed) == expected & changed.keys()
    assert runs_again(changed, plain) >= expected & plain.keys()
    assert runs_again(changed, plain) <= expected | (plain.keys() - changed.keys())


def test_the_table_has_every_setting_and_changes_it(read):
    named = [row["setting"] for row in TABLE]
    assert set(named) == set(leaves_in(Config))
    for row in TABLE:
        before, after = (
            leaves_of(read(row["config"], change), [row["setting"]])
            for change in ("", row["change"])
        )
        assert before != after, row


def test_a_new_section_of_the_config_runs_nothing_again(read, tmp_path):
    class NewConfig(Config):
        later: PruneConfig = PruneConfig()
        also: bool = False

    config = read("digits")
    newer = NewConfig.model_validate(config.model_dump(mode="json"))
    changed = newer.model_copy(update={"also": True})
    before = facts(config, tmp_path)
    assert runs_again(before, facts(newer, tmp_path)) == set()
    assert runs_again(before, facts(changed, tmp_path)) == set()


def test_stages_declare_settings_and_results_that_exist(read):
    # The demo's chain has every stage of `CHAIN`, and in this order.
    config, names = complete(read("latency")), [stage.name for stage in DEMO]
    assert len(set(names)) == len(names)
    assert [name for name in names if name in {stage.name for stage in CHAIN}] == [
        stage.name for stage in CHAIN
    ]
    for stage in (*DEMO, *CHAIN):
        for path in (*stage.settings, *stage.harmless, *stage.files):
            assert leaves_of(config, [path]), (stage.name, path)
        earlier = names[: names.index(stage.name)]
        assert {need.partition(".")[0] for need in stage.needs} <= {*earlier}
        assert not set(stage.settings) & set(stage.harmless)


@dataclass(frozen=True)
class Options:
    fails: bool = False


class Notes(Silent):
    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


def stage_that(run, **more):
    return Stage("one", run, run, **more)


def test_by_hand_a_stage_starts_again_unless_it_is_resumed(read, tmp_path):
    def run(inputs, settings, workspace):
        calls.append((inputs.resume, inputs.unchanged))
        (workspace.folder / "half").touch()
        if inputs.options.fails:
            raise MeasureError("the power went out")
        return settings.width

    calls, notes = [], Notes()
    stage = stage_that(run, settings=("width",))
    workspace = stage.workspace(tmp_path, in_chain=False)
    inputs = Inputs("run", options=Options(), progress=notes)

    def enter(config, **changes):
        return by_hand(stage, config, replace(inputs, **changes), workspace)

    assert enter(read("digits")) == 0.1
    assert enter(read("digits")) == 0.1
    assert enter(read("digits"), resume=True) == 0.1
    assert calls == [(False, False), (False, False), (True, True)]
    assert notes.said == []
    enter(read("digits", "width=0.2"), resume=True)
    assert calls[-1] == (True, False)
    assert notes.said == ["note: resumed although width was 0.1 and is 0.2"]
    with pytest.raises(MeasureError):
        enter(read("digits"), options=Options(fails=True))
    assert workspace.read().finished is False


def test_a_stage_gets_only_what_it_declares(read, tmp_path):
    stage = stage_that(lambda inputs, settings, workspace: settings.width, settings=("model",))
    with pytest.raises(UndeclaredSettingError, match=r"Received 'width'.*stage 'one'"):
        by_hand(stage, read("digits"), Inputs("run"), Workspace(tmp_path / "new"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(LookupError, match="must be started with data"):
        _ = Inputs("run").splits

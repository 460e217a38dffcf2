"""Stage: one step of a pipeline, which declares what its result depends on.

A chain is a tuple of stages and nothing more. The digests of what a stage declares decide whether
its result is finished, can be resumed, or must be made again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from flyweight.config.preprocessing import Appearance
from flyweight.config.settings import Config
from flyweight.config.training import TrainConfig
from flyweight.digests import digest_of_images
from flyweight.pipeline.inputs import Data
from flyweight.pipeline.networks import kind_of
from flyweight.pipeline.results import checkpoint_digests
from flyweight.pipeline.setting_files import digest_of_setting
from flyweight.pipeline.settings_view import leaves_of, view_of
from flyweight.progress import SILENT, Progress
from flyweight.workspace import MadeFrom, Workspace

Split = Literal["train", "val"]

NETWORK = ("model", "task", "num_classes", "width", "model_args")
"""The settings that say how the network is built."""
INPUT = ("input_size", *Appearance.model_fields)
"""The settings that say how an image becomes the network's input."""
TASKS = ("detect", "classify", "segment")
"""The settings of losses, decoding and metrics."""
LOADING = ("eval_batch_size", "train.num_workers", "data.root", "data.ground_truth")
"""Settings of how and from where data are loaded; the data themselves are digested."""


@dataclass(frozen=True)
class Inputs:
    """What a stage gets besides settings and its workspace.

    Attributes:
        name: Of the run, for titles and file descriptions.
        data: The splits, where the stage declares any.
        results: Results of earlier stages, by the stage's name.
        options: What the caller chose besides the config; a frozen value of the stage's own.
        resume: Resume from what an interrupted attempt has left.
        unchanged: Whether that attempt was made from the same things, so that all it has left is
            valid.
        progress: Receives messages and progress.
        image_digests: Digests of the splits, which all stages of a chain share.
    """

    name: str
    data: Data | None = None
    results: Mapping[str, Any] = field(default_factory=dict)
    options: Any = None
    resume: bool = False
    unchanged: bool = False
    progress: Progress = SILENT
    image_digests: dict[str, str] = field(default_factory=dict, compare=False)

    def digest_of(self, split: Split) -> str:
        """Return the digest of a split; it is computed once.

        Raises:
            FileError: A file of the split cannot be read.
        """
        if split not in self.image_digests:
            images = getattr(self.splits, split)
            self.image_digests[split] = digest_of_images(images, progress=self.progress)
        return self.image_digests[split]

    @property
    def splits(self) -> Data:
        """The data of a stage that declares splits.

        Raises:
            LookupError: The stage was started without data. This is a defect of the caller.
        """
        if self.data is None:
            raise LookupError("a stage that declares splits must be started with data")
        return self.data


@dataclass(frozen=True)
class Stage:
    """One step of a pipeline.

    Attributes:
        name: Of the stage, and of its result among the inputs of later ones.
        run: Makes the result: called with inputs, a view of the declared settings, and the
            workspace whose folder gets all files.
        read: Returns the result of a finished stage from its workspace; called like `run`.
        settings: Dotted paths of the settings that the result depends on. Sections for other
            tasks than the network's do not count.
        harmless: Dotted paths of settings that the stage reads and that do not change the result.
            One of them may lie within a section of `settings`.
        files: Settings that name a file or folder whose contents the result depends on.
        splits: Splits that the result depends on.
        needs: Earlier results that it depends on, as "STAGE.DIGEST". Stages that a chain does not
            have, or does not want, are left out.
        surroundings: Returns what the result depends on besides, by name, for a run folder: the
            machine, or files that users put there.
        digests: Returns digests of the result, by name, for the stages that need it.
        makes: Returns the names of the files that a finished stage has in its folder.
        wanted: Returns whether a chain with this config has the stage.
        check: Refuses a config that the stage cannot work with, before anything runs.
        check_inputs: Refuses data and earlier results that the stage cannot work with, in a chain;
            called before anything runs, and when a result that the stage needs is there.
        options: What a chain chooses besides the config; a frozen value of the stage's own.
        folder: The stage's own folder within that of a chain; "" where it writes beside others.
    """

    name: str
    run: Callable[[Inputs, Config, Workspace], Any]
    read: Callable[[Inputs, Config, Workspace], Any]
    settings: tuple[str, ...] = ()
    harmless: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    splits: tuple[Split, ...] = ()
    needs: tuple[str, ...] = ()
    surroundings: Callable[[Path], Mapping[str, Any]] = lambda _: {}
    digests: Callable[[Any], Mapping[str, str]] = lambda _: {}
    makes: Callable[[Config], Sequence[str]] = lambda _: ()
    wanted: Callable[[Config], bool] = lambda _: True
    check: Callable[[Config], None] = lambda _: None
    check_inputs: Callable[[Inputs, Config], None] = lambda *_: None
    options: Any = None
    folder: str = ""

    @property
    def title(self) -> str:
        """What messages call the stage."""
        return self.folder or self.name

    def view(self, config: Config) -> Config:
        """Return the settings that the stage may read."""
        return view_of(config, (*self.settings, *self.harmless, *self.files), self.name)

    def needs_result_of(self, earlier: "Stage") -> bool:
        """Return whether the stage's result depends on that of another."""
        return any(need.partition(".")[0] == earlier.name for need in self.needs)

    def workspace(self, folder: Path, *, in_chain: bool) -> Workspace:
        """Return the stage's workspace in a run folder.

        Args:
            folder: Of a chain, or of commands run by hand, which all write into it.
            in_chain: Which of the two.
        """
        if in_chain and self.folder:
            return Workspace(folder / self.folder)
        return Workspace(folder, f"{self.name}.done.json")


def complete(config: Config) -> Config:
    """Return the config with what its defaults refer to: fine-tuning is as training by default."""
    return config.model_copy(update={"finetune": fine_tuning(config)})


def fine_tuning(settings: Config) -> TrainConfig:
    """Return how to train after a cut."""
    return settings.finetune or settings.train


def made_from(
    stage: Stage,
    config: Config,
    inputs: Inputs,
    folder: Path,
    earlier: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> MadeFrom:
    """Return everything that a stage declares its result to depend on, by name.

    Args:
        stage: Declares it.
        config: Has the settings, `complete`.
        inputs: Has the data and the options.
        folder: Of the run.
        earlier: The digests of earlier results, by stage.

    Raises:
        FlyweightError: A file that a setting names cannot be read.
    """
    leaves = leaves_of(config, stage.settings)
    for path in leaves_of(config, (*stage.harmless, *stage.files, *_of_other_tasks(config))):
        leaves.pop(path, None)
    values = {path: leaf.value for path, leaf in leaves.items()}
    for path in stage.files:
        values[f"file of {path}"] = digest_of_setting(config, path)
    for split in stage.splits:
        values[f"{split} images"] = inputs.digest_of(split)
    for need in stage.needs:
        name, _, what = need.partition(".")
        if name in earlier:
            values[f"{what} of {name}"] = earlier[name][what]
    if inputs.options is not None:
        values.update({f"option {key}": value for key, value in vars(inputs.options).items()})
    values.update(stage.surroundings(folder))
    return MadeFrom(values, frozenset(path for path, leaf in leaves.items() if leaf.is_default))


def _of_other_tasks(config: Config) -> list[str]:
    """Return the sections for tasks that are not the network's; nothing reads their settings."""
    others = [task for task in TASKS if task != kind_of(config)]
    return [*others, *(f"augment.{task}" for task in others if task != "detect")]


def by_hand(stage: Stage, config: Config, inputs: Inputs, workspace: Workspace) -> Any:
    """Return the result of a stage that starts from the beginning, or resumes if that is asked.

    A resumed stage continues even if something that it depends on has changed since; what has
    changed is reported. A training refuses by itself to continue with other settings.
    """
    config = complete(config)
    earlier = {"train": checkpoint_digests(inputs.results["train"])} if inputs.results else {}
    wanted = made_from(stage, config, inputs, workspace.folder, earlier)
    standing = workspace.standing(wanted)
    if inputs.resume and standing.differences:
        changes = "; ".join(map(str, standing.differences))
        inputs.progress.note(f"note: resumed although {changes}")
    unchanged = inputs.resume and standing.state in ("interrupted", "finished")
    with workspace.recorded(wanted, resume=unchanged):
        return stage.run(replace(inputs, unchanged=unchanged), stage.view(config), workspace)

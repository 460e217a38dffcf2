import json
from pathlib import Path

import pytest

from flyweight.errors import FileError
from flyweight.workspace import (
    LOCK,
    NOTE,
    MadeFrom,
    Note,
    Work,
    Workspace,
    differences,
    missing_files,
    perform,
)


class Attempts:
    """Counts its attempts; fails while told to."""

    def __init__(self, folder):
        self.folder = folder
        self.workspace = Workspace(folder)
        self.attempts = []
        self.fails = False
        self.said = []

    def __call__(self, resumes):
        self.attempts.append(resumes)
        (self.folder / "half").write_text("")
        if self.fails:
            raise FileError("cut off")
        (self.folder / "made").write_text("whole")

    def do(self, values, defaults=(), **options):
        made_from = MadeFrom(values, frozenset(defaults))
        work = Work("dense", made_from, ["made"], **options)
        perform(work, self.workspace, self, say=self.said.append)


@pytest.fixture
def work(tmp_path):
    return Attempts(tmp_path / "dense")


def test_done_once(work):
    work.do({"a": 1})
    work.do({"a": 1})
    assert work.attempts == [False]
    assert work.said == [
        "dense: started",
        "dense: finished in 0 s",
        "dense: finished before, skipped",
    ]


def test_done_again_from_the_start_when_it_depends_on_something_new(work):
    work.do({"a": 1})
    work.do({"a": 2})
    assert work.attempts == [False, False]
    assert "dense: started again, because a was 1 and is 2" in work.said


def test_what_differs_is_named(work):
    work.do({"a": 1, "b": None, "images": "0123456789abcdef"})
    work.do({"a": "x", "b": [2], "images": "fedcba9876543210"})
    assert 'dense: started again, because a was 1 and is "x" (2 more)' in work.said
    found = differences({"images": "0" * 16, "gone": 1}, MadeFrom({"images": "1" * 16}))
    assert [str(one) for one in found] == ["gone was 1 and is nothing", "images changed"]
    work.do({"a": (1, 2)})
    work.do({"a": [1, 2]})
    assert len(work.attempts) == 3


def test_a_setting_that_an_older_version_did_not_have_counts_only_when_it_is_used(work):
    work.do({"a": 1})
    work.do({"a": 1, "new": 0}, defaults=["new"])
    assert work.attempts == [False]
    work.do({"a": 1, "new": 5})
    work.do({"a": 1, "new": 0}, defaults=["new"])
    assert work.attempts == [False, False, False]


def test_goes_on_where_it_was_cut_off(work):
    work.fails = True
    with pytest.raises(FileError):
        work.do({"a": 1})
    work.fails = False
    work.do({"a": 1})
    work.do({"a": 1})
    assert work.attempts == [False, True]
    assert "dense: resumed where it was interrupted" in work.said


def test_does_not_go_on_with_something_else(work):
    work.fails = True
    with pytest.raises(FileError):
        work.do({"a": 1})
    work.fails = False
    work.do({"a": 2})
    assert work.attempts == [False, False]


def test_done_again_when_its_files_are_gone(work):
    work.do({"a": 1})
    (work.folder / "made").unlink()
    assert missing_files(work.folder, ["half", "made"]) == ("made",)
    work.do({"a": 1})
    assert work.attempts == [False, False]
    assert "dense: started again, because a file of its result is missing" in work.said


def test_done_again_when_forgotten(work):
    work.do({"a": 1})
    work.workspace.forget()
    assert (work.folder / "made").read_text() == "whole"
    work.do({"a": 1})
    assert work.attempts == [False, False]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"made_from": 3}', "[" * 100_000])
def test_a_note_that_cannot_be_read(work, text):
    work.do({"a": 1})
    (work.folder / NOTE).write_text(text)
    work.do({"a": 1})
    assert work.attempts == [False, False]
    assert json.loads((work.folder / NOTE).read_text())["finished"] is True


def test_notes_of_version_0_1_0(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.note_path.write_text('{"made_from": "20f0", "finished": true, "seconds": 2.0}\n')
    assert workspace.read() == Note(None, True, 2.0, old_digest="20f0")
    assert workspace.standing(MadeFrom({"a": 1})).state == "changed"
    scan = Workspace(tmp_path, "made_from.json")
    scan.note_path.write_text('{"graph": "1f", "data": ""}')
    assert scan.standing(MadeFrom({"graph": "1f", "data": ""})).state == "interrupted"


def test_keeps_out_of_folders_of_others(work):
    work.folder.mkdir()
    (work.folder / "thesis.tex").write_text("years")
    with pytest.raises(FileError, match=r"must be empty or its own"):
        work.do({"a": 1})
    work.workspace.forget()
    assert [path.name for path in work.folder.iterdir()] == ["thesis.tex"]
    assert work.attempts == []
    work.do({"a": 1}, shares_folder=True)
    assert work.attempts == [False]


def test_work_that_fails_before_it_writes_keeps_its_note(tmp_path):
    def refused(_):
        raise FileError("no such file")

    work = Work("dense", MadeFrom({"a": 1}))
    for name in ("new", "old"):
        workspace = Workspace(tmp_path / name)
        if name == "old":
            workspace.begin(MadeFrom({"a": 0}))
        with pytest.raises(FileError):
            perform(work, workspace, refused, say=lambda _: None)
        assert workspace.standing(work.made_from).state == "interrupted"
    assert workspace.read().finished is False


def test_works_in_a_locked_folder(work):
    with work.workspace.locked():
        assert (work.folder / LOCK).is_file()
        work.do({"a": 1})
    assert not (work.folder / LOCK).exists()


def test_parts(tmp_path):
    workspace = Workspace(tmp_path / "s.json.parts")
    assert workspace.read_part("one.json") is None
    workspace.write_part("one.json", {"a": [1]})
    assert workspace.read_part("one.json") == {"a": [1]}
    workspace.remove()
    assert list(tmp_path.iterdir()) == []


def test_the_note_is_removed_after_the_parts(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path / "s.json.parts")
    workspace.begin(MadeFrom({"a": 1}))
    workspace.write_part("one.json", 1)
    seen = []
    unlink = Path.unlink

    def look(self, **options):
        seen.append(self.name)
        unlink(self, **options)

    monkeypatch.setattr(Path, "unlink", look)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: seen.append("the rest"))
    workspace.remove()
    assert seen == ["one.json", "the rest"]


def test_a_lock_is_taken_over_with_what_its_dead_owner_left(work):
    work.folder.mkdir(parents=True, exist_ok=True)
    (work.folder / ".best_model.safetensors.abc.draft").write_text("half")
    with work.workspace.locked():
        assert [path.name for path in work.folder.iterdir()] == [LOCK]


def test_parts_that_are_recorded_belong_to_the_attempt(tmp_path):
    workspace, made_from = Workspace(tmp_path), MadeFrom({"a": 1})
    (tmp_path / "plan").touch()
    workspace.begin(made_from)
    assert not workspace.has_part("plan")  # of something else, then
    workspace.keep_part("plan")
    workspace.begin(made_from, resume=True)
    assert workspace.has_part("plan")
    assert workspace.standing(made_from).state == "interrupted"
    workspace.finish(made_from, 1)
    assert workspace.has_part("plan")
    (tmp_path / "plan").unlink()
    assert not workspace.has_part("plan")
    workspace.begin(made_from)
    assert workspace.read().parts == ()


def test_two_pieces_of_work_in_one_folder(tmp_path):
    one, two = Workspace(tmp_path, "one.json"), Workspace(tmp_path, "two.json")
    made_from = MadeFrom({"a": 1})
    one.begin(made_from)
    assert (one.standing(made_from).state, two.standing(made_from).state) == ("interrupted", "new")
    one.finish(made_from, 1.23)
    assert one.read() == Note({"a": 1}, True, 1.2)

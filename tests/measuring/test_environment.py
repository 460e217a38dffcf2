import os

from flyweight import processors
from flyweight.measuring import environment

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_commit_is_read_from_a_branch(tmp_path):
    (tmp_path / ".git/refs/heads").mkdir(parents=True)
    (tmp_path / ".git/HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / ".git/refs/heads/main").write_text(COMMIT + "\n")
    assert environment.commit(tmp_path) == COMMIT


def test_a_commit_is_read_from_packed_refs(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / ".git/packed-refs").write_text(f"# pack-refs\n{COMMIT} refs/heads/main\n")
    assert environment.commit(tmp_path) == COMMIT


def test_a_commit_is_read_from_a_detached_head(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/HEAD").write_text(COMMIT)
    assert environment.commit(tmp_path) == COMMIT


def test_a_commit_is_read_from_a_linked_worktree(tmp_path):
    main, tree = tmp_path / "main/.git", tmp_path / "tree"
    (main / "worktrees/tree").mkdir(parents=True)
    (main / "refs/heads").mkdir(parents=True)
    tree.mkdir()
    (tree / ".git").write_text(f"gitdir: {main}/worktrees/tree\n")
    (main / "worktrees/tree/HEAD").write_text("ref: refs/heads/other\n")
    (main / "worktrees/tree/commondir").write_text("../..\n")
    (main / "refs/heads/other").write_text(COMMIT)
    assert environment.commit(tree) == COMMIT


def test_without_a_checkout_or_a_first_commit_there_is_none(tmp_path):
    assert environment.commit(tmp_path) is None
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/HEAD").write_text("ref: refs/heads/main\n")
    assert environment.commit(tmp_path) is None


def test_usable_cores_are_the_allowed_ones(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3}, raising=False)
    assert set(environment.usable_cores()) == {1, 3}


def test_usable_cores_are_all_where_the_system_does_not_tell(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert set(environment.usable_cores()) == {0, 1, 2}


def test_threads_take_one_core_of_every_physical_core_first(monkeypatch):
    siblings = {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(siblings), raising=False)
    monkeypatch.setattr(
        processors, "_read", lambda path: siblings[int(path.parts[-3].removeprefix("cpu"))]
    )
    assert environment.usable_cores() == (3, 2, 1, 0)


def test_the_environment_names_the_machine_and_the_software():
    here = environment.read_environment({"onnxruntime": "1.0"}, load_before=0.5, load_after=1.0)
    assert here.cpu
    assert here.cores >= 1
    assert (here.load_before, here.load_after) == (0.5, 1.0)
    assert here.runtimes == {"onnxruntime": "1.0"}
    assert here.date.endswith("+00:00")


def test_the_hardware_in_words(monkeypatch):
    monkeypatch.setattr(environment, "cpu_model", lambda: "Some CPU")
    for count, words in ((1, "Some CPU, 1 core"), (2, "Some CPU, 2 cores")):
        monkeypatch.setattr(environment, "usable_count", lambda count=count: count)
        assert environment.hardware() == words

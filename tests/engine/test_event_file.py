import threading

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flyweight.engine.event_file import EventFile


def scalars(folder):
    board = EventAccumulator(str(folder)).Reload()
    return [(event.step, event.value) for event in board.Scalars("train/loss")]


def test_tensorboard_reads_each_row_as_soon_as_it_is_written(tmp_path):
    file = EventFile(tmp_path / "board", 0)
    file.add("train", 1, {"loss": 0.5, "lr": 1.0})
    assert scalars(tmp_path / "board") == [(1, 0.5)]
    file.add("train", 2, {"loss": 0.25})
    file.close()
    file.close()
    assert scalars(tmp_path / "board") == [(1, 0.5), (2, 0.25)]


def test_a_resumed_run_adds_a_file_that_hides_later_steps(tmp_path):
    for start, value in ((0, 0.5), (1, 0.75)):
        file = EventFile(tmp_path, start)
        for step in range(start + 1, 4):
            file.add("train", step, {"loss": value})
        file.close()
    assert len(list(tmp_path.iterdir())) == 2
    assert scalars(tmp_path) == [(1, 0.5), (2, 0.75), (3, 0.75)]


def test_no_thread_is_started(tmp_path):
    before = threading.active_count()
    file = EventFile(tmp_path, 0)
    assert threading.active_count() == before
    file.close()

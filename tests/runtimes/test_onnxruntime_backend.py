import numpy as np

from flyweight.runtimes.onnxruntime_backend import open_session


def test_a_session_runs_with_the_asked_threads(make_chain):
    session = open_session(make_chain(rows=2, size=8), threads=2)
    options = session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    (answer,) = session.run(None, {"images": np.ones((2, 8), np.float32)})
    assert answer.shape == (2, 8)

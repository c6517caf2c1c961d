"""Random streams depend on the trial and on nothing else."""

import numpy as np

from sigad.seeds import Streams, name_key, trial_streams


def test_streams_repeat_and_do_not_depend_on_the_chunk():
    whole = [stream.data().random(3) for stream in trial_streams(7, "e", "n=1", range(10))]
    parts = [s.data().random(3) for start in (0, 5) for s in trial_streams(7, "e", "n=1", range(start, start + 5))]
    np.testing.assert_array_equal(whole, parts)


def test_every_coordinate_changes_every_stream():
    base = Streams(7, "e", "n=1", 0)
    others = [
        Streams(8, "e", "n=1", 0),
        Streams(7, "f", "n=1", 0),
        Streams(7, "e", "n=2", 0),
        Streams(7, "e", "n=1", 1),
    ]
    draws = [getattr(s, kind)().random() for s in [base, *others] for kind in ("data", "selection", "method")]
    assert len(set(draws)) == len(draws)


def test_streams_are_fixed_for_all_time():
    # A change here would silently change every result ever computed.
    assert name_key("fig02_type1_over_n") == 3612511593
    assert Streams(1, "a", "b", 2).data().integers(1 << 30) == 166143527

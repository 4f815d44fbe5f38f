import numpy as np

from benchmarks import seams


def test_a_joint_that_moves_twice_as_far_is_told_from_a_clip_that_does_so_itself():
    """Grey pictures that brighten by 1 a frame, and by 2 into every fourth."""
    steps = np.where(np.arange(1, 12) % 4 == 0, 2.0, 1.0)
    jumpy = np.broadcast_to(np.cumsum([0, *steps])[:, None, None, None], (12, 2, 2, 3))
    even = np.broadcast_to(np.arange(12.0)[:, None, None, None], (12, 2, 2, 3))
    assert seams.changes(jumpy, 4) == (2.0, 1.0) and seams.changes(even, 4) == (1.0, 1.0)
    for truth, quotient in ((even, 2.0), (jumpy, 1.0)):
        row = [*seams.changes(jumpy, 4), *seams.changes(truth, 4), 0.5]
        made, _, both, drift = seams.cells(np.array([row, row]))
        assert made == "2.000 [2.000, 2.000]" and drift == "+0.5000 [+0.5000, +0.5000]"
        assert both == f"{quotient:.3f} [{quotient:.3f}, {quotient:.3f}]"

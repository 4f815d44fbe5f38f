import numpy as np
import pytest

from input_pipeline.errors import InputError
from input_pipeline.media.changes import Changes


def test_repeats_are_told_and_cuts_named_with_their_frame(photo):
    changes = Changes("a.mp4")
    assert [changes(photo), changes(photo), changes(np.roll(photo, 2, 1))] == [True, False, True]
    with pytest.raises(InputError, match=r"a\.mp4: frame 3: hard cut"):
        changes(255 - photo)


def test_blank_frames_are_no_cut_but_hide_none(photo):
    changes, black = Changes("a.mp4"), np.zeros_like(photo)
    for image in (black, black, photo, black, photo, black):
        assert changes(image) in (True, False)
    with pytest.raises(InputError, match="frame 6: hard cut"):
        changes(255 - photo)

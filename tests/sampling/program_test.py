"""Who waits is told what is going on, and may stop it."""

import pytest

from durian_jax.sampling.program import Stopwatch, Terminal


def test_the_terminal_has_a_line_for_each_phase_and_a_bar_of_the_steps(capsys):
    watch = Stopwatch()
    with watch.phase("compiling denoiser"):
        pass
    for done in range(4):
        watch.progress("denoising", done, 3)
        watch.progress("decoding", done, 3)
    shown = capsys.readouterr()
    assert "compiling denoiser ..." in shown.out and "3/3" in shown.err
    assert "decoding" not in shown.out + shown.err


def test_a_quiet_terminal_speaks_of_nothing_but_compilation(capsys):
    told = Terminal(quiet=True)
    for phase in ("reading photos and clip", "compiling decoder"):
        told(phase, 0, 0)
    told("denoising", 1, 3)
    shown = capsys.readouterr()
    assert shown.out.split("\n") == ["compiling decoder ...", ""] and not shown.err


def test_what_progress_raises_ends_the_phase():
    def stop(phase, done, total):
        raise KeyError(phase)

    watch = Stopwatch(progress=stop)
    with pytest.raises(KeyError, match="compiling"), watch.phase("compiling"):
        raise AssertionError("the work was begun")
    with watch.phase("denoiser", silent=True):
        pass
    assert list(watch.seconds) == ["denoiser"]

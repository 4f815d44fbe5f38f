"""What errors say to callers in Python, on the command line, and in a report."""

import pickle

import pytest

from input_pipeline.errors import InputError, in_one_line


def test_an_option_is_an_argument_in_python_and_a_flag_on_the_command_line():
    error = InputError("1.5: must be 0 to 1", option="grow_mask")
    assert str(error) == "grow_mask 1.5: must be 0 to 1"
    assert error.on_command_line == "--grow-mask 1.5: must be 0 to 1"


def test_without_an_option_both_read_the_same():
    error = InputError("a.mp4: no such file")
    assert str(error) == error.on_command_line == "a.mp4: no such file"


def test_the_option_comes_back_from_another_process():
    error = pickle.loads(pickle.dumps(InputError("3: too many", option="workers")))
    assert (str(error), error.on_command_line) == ("workers 3: too many", "--workers 3: too many")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("two\n lines"), "two lines"),
        (ValueError("bad\nvalue"), "ValueError: bad value"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_one_line_of_any_exception(error, said):
    assert in_one_line(error) == said


def test_what_is_no_input_error_tells_where_it_was_raised():
    with pytest.raises(ZeroDivisionError) as caught:
        _ = 1 // 0
    assert in_one_line(caught.value).startswith("ZeroDivisionError: ")
    assert "(errors_test.py:" in in_one_line(caught.value)

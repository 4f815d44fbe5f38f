"""What the page says names no folder of the host, and is text, not HTML."""

import pytest

from durian_jax.app import words
from input_pipeline.errors import InputError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/tmp/durian-app-x/4f/me.png: no face", "me.png: no face"),
        ("/a/b.png: would replace /home/me/c.png: no", "b.png: would replace c.png: no"),
        ('{"portrait": "/tmp/a/b/me.png"}', '{"portrait": "me.png"}'),
        ("write 0.2:0.8, 3/4 or and/or", "write 0.2:0.8, 3/4 or and/or"),
    ],
)  # fmt: skip
def test_folders_are_left_out(text, shown):
    assert words.without_folders(text) == shown


def test_a_fault_of_the_program_is_told_to_the_terminal_alone(capsys):
    try:
        raise KeyError("/home/me/secret")
    except KeyError as error:
        assert "secret" not in words.tell(error) and "Error" not in words.tell(error)
    assert "/home/me/secret" in capsys.readouterr().err
    assert words.tell(InputError("/a/b/me.png: no\n face")) == "me.png: no face"


def test_names_are_no_html():
    said = words.wrong(InputError("<img src=x>: no"))
    assert "<img" not in said and "&lt;img src=x&gt;: no" in said and 'role="alert"' in said

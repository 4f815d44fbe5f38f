"""Options made from what a dataclass or a function takes."""

import argparse
import dataclasses
from pathlib import Path
from typing import Literal

import pytest

from durian_jax.cli import fields


@dataclasses.dataclass
class Tea:
    """How tea is made.

    Attributes:
      water: the spring it comes from.
      cup: picture of the cup.
      heat: degrees Celsius, at most 100 % of
        boiling.
      minutes: how long.
      milk: with milk.
    """

    water: str
    cup: str | Path | None = None
    heat: float = 95.0
    minutes: int = 0
    milk: bool = False


def _parser(*names, **settings):
    parser = argparse.ArgumentParser()
    fields.add(parser, Tea, *names, **settings)
    return parser


def test_what_is_given_makes_the_same_object():
    options = _parser().parse_args(
        ["--water", "lake", "--cup", "a.png", "--heat", "80.5", "--minutes", "3", "--milk"]
    )
    assert Tea(**fields.given(Tea, options)) == Tea("lake", Path("a.png"), 80.5, 3, True)
    options = _parser().parse_args(["--water", "lake"])
    assert Tea(**fields.given(Tea, options)) == Tea("lake")


def test_only_the_fields_named_are_options():
    options = _parser("minutes", minutes={"choices": (3, 4)}).parse_args(["--minutes", "4"])
    assert fields.given(Tea, options) == {"minutes": 4}
    with pytest.raises(SystemExit):
        _parser("minutes", minutes={"choices": (3, 4)}).parse_args(["--minutes", "5"])
    with pytest.raises(SystemExit):
        _parser().parse_args([])  # water has no default


def test_the_help_has_meaning_unit_and_default():
    text = " ".join(_parser().format_help().split())
    assert "--heat HEAT degrees Celsius, at most 100 % of boiling (default: 95)" in text
    assert "--minutes MINUTES how long (default: 0)" in text
    assert text.endswith("--milk with milk")


def test_defaults_may_come_from_elsewhere():
    parser = _parser("heat", default="the cook")
    assert parser.parse_args([]).heat is None
    assert "(default: the cook)" in " ".join(parser.format_help().split())


def test_listed_values_are_choices():
    @dataclasses.dataclass
    class Cup:
        size: Literal["small", "large"] = "small"
        lid: Literal["cork", "clay"] | None = None

    parser = argparse.ArgumentParser()
    fields.add(parser, Cup)
    assert parser.parse_args(["--size", "large"]).size == "large"
    assert parser.parse_args(["--lid", "clay"]).lid == "clay" and parser.parse_args([]).lid is None
    with pytest.raises(SystemExit):
        parser.parse_args(["--lid", "tin"])

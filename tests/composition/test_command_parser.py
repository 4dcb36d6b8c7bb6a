"""Mistakes in a command's words."""

from __future__ import annotations

import pytest

from rlkit.composition.command_parser import Parser
from rlkit.errors import UserError


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["lisst"], r"invalid choice: 'lisst' .* Did you mean 'list'\? See own --help$"),
        (["zzzz"], r"invalid choice: 'zzzz' \(choose from .*\); see own --help$"),
        ([], r"^the following arguments are required: command; see own --help$"),
    ],
)
def test_a_wrong_word_is_told_the_nearest(given: list[str], said: str) -> None:
    parser = Parser(prog="own")
    parser.add_argument("command", choices=["list", "show", "report"])
    with pytest.raises(UserError, match=said):
        parser.parse_args(given)

"""Settings of the choice of prompts."""

from __future__ import annotations

from rlkit.config.prompts import PromptsConfig


def test_pass_rates_are_read_if_a_choice_depends_on_them() -> None:
    assert not PromptsConfig().reads_pass_rates
    assert PromptsConfig(order="target").reads_pass_rates
    assert PromptsConfig(order="easy_first").reads_pass_rates
    assert PromptsConfig(drop_solved=3).reads_pass_rates


def test_half_is_forgotten_in_as_many_steps_as_is_said() -> None:
    assert abs((1 - PromptsConfig().forget) ** 34 - 0.5) < 0.01

"""The typed form of an answer."""

from __future__ import annotations

from rlkit.rewards.math.form import Form, flat, unnamed


def test_a_bare_list_hands_its_name_to_its_first_item() -> None:
    one, two = Form(value=1), Form(value=2)
    listed = Form(label="n", kind="list", items=(one, two))
    assert [form.label for form in flat(listed)] == ["n", ""]
    assert flat(one) == (one,)


def test_an_answer_without_its_name() -> None:
    assert unnamed(Form(label="x", value=3)) == Form(value=3)

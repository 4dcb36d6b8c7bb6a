"""What `list` and `show` print."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlkit.composition.config_files import configs_folder, options
from rlkit.composition.show import list_options, show
from rlkit.errors import UserError

SHIPPED = (configs_folder(),)


def test_a_list_is_the_options_of_a_group_or_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    list_options("loss", SHIPPED)
    assert capsys.readouterr().out.split() == options("loss", SHIPPED)
    list_options(None, SHIPPED)
    lines = capsys.readouterr().out.splitlines()
    assert "buffer:      " + ", ".join(options("buffer", SHIPPED)) in lines


def test_a_part_is_shown_with_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    show("buffer", "fifo", SHIPPED)
    text = capsys.readouterr().out
    assert text.startswith("buffer=fifo  buffers.fifo:Fifo  ")
    assert "\nbuffer.window = " in text
    show("buffer", "buffers.fifo:Fifo", SHIPPED)
    assert capsys.readouterr().out == text


@pytest.mark.parametrize("word", ["buffer=fifo", "fifo"])
def test_one_word_is_enough_where_it_means_one_thing(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show(word, None, SHIPPED)
    assert capsys.readouterr().out.startswith("buffer=fifo  buffers.fifo:Fifo  ")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "remix",
            "2 things, say which: rlkit show loss remix, rlkit show algorithm remix",
        ),
        ("buffer", "rlkit show buffer needs a name: rlkit list buffer has them"),
        ("fifoo", "nothing is called 'fifoo'"),
        ("bufer=fifo", "bufer"),
    ],
)
def test_one_word_that_means_nothing_or_two_things_is_told(word: str, said: str) -> None:
    with pytest.raises(UserError) as told:
        show(word, None, SHIPPED)
    assert said in str(told.value) and "\n" not in str(told.value)


def test_a_composition_is_shown_as_overrides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "algorithm").mkdir()
    path = tmp_path / "algorithm" / "mine.yaml"
    path.write_text(
        "# Mine.\ndefaults: [grpo, override /loss: ppo, _self_]\ntrain: {steps: 3, minibatches: 1}"
    )
    show("algorithm", "mine", (tmp_path,))
    assert capsys.readouterr().out.splitlines() == [
        f"algorithm=mine  {path}",
        "",
        "Mine. ",
        "",
        "algorithm=grpo",
        "loss=ppo",
        "train.steps=3",
        "train.minibatches=1",
    ]


def test_a_variant_is_shown_with_the_settings_of_its_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "buffer").mkdir()
    (tmp_path / "buffer" / "below.yaml").write_text("defaults: [fifo]\nwindow: 7\n")
    (tmp_path / "buffer" / "mine.yaml").write_text("defaults: [below]\nreplay_fraction: 0.125\n")
    show("buffer", "mine", (tmp_path,))
    text = capsys.readouterr().out
    assert "buffer=fifo with\n  buffer.window=7\n  buffer.replay_fraction=0.125\n" in text
    assert "\nbuffer.window = 7 " in text and "\nbuffer.replay_fraction = 0.125 " in text


@pytest.mark.parametrize(
    ("group", "name", "said"),
    [
        ("los", "ppo", "no kind of part called 'los'"),
        ("loss", "remx", "no loss called 'remx'. Did you mean 'remix'"),
        ("algorithm", "gpro", "no algorithm called 'gpro'. Did you mean"),
    ],
)
def test_what_is_not_there_is_told_the_nearest(group: str, name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        show(group, name, SHIPPED)

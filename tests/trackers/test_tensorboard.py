"""TensorBoard: keys, values, steps, and what a resumed run leaves visible."""

from __future__ import annotations

from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from rlkit.trackers.tensorboard import TensorBoardConfig, TensorBoardTracker, as_markdown, literal


def read(run_dir) -> EventAccumulator:
    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    return events


def write(run_dir, *lines, **settings: Any) -> None:
    tracker = TensorBoardTracker(TensorBoardConfig(**settings))
    assert tracker.start(str(run_dir), {"train": {"steps": 3}}, None) is None
    for step, metrics in lines:
        tracker.log(step, metrics)
    tracker.close(failed=False)


def test_every_metric_is_a_scalar_under_its_own_key_at_its_step(tmp_path):
    write(tmp_path, (0, {"eval/pass@1": 0.25}), (1, {"reward/mean": 0.5, "policy/loss": -1.0}))
    events = read(tmp_path)
    assert set(events.Tags()["scalars"]) == {"eval/pass@1", "reward/mean", "policy/loss"}
    assert [(e.step, e.value) for e in events.Scalars("eval/pass@1")] == [(0, 0.25)]
    assert [(e.step, e.value) for e in events.Scalars("policy/loss")] == [(1, -1.0)]


def test_the_configuration_is_written_as_text(tmp_path):
    write(tmp_path, (0, {"eval/pass@1": 0.25}))
    assert '"train.steps": 3' in texts(tmp_path, "config/text_summary")[0]


def texts(run_dir, tag: str) -> list[str]:
    return [e.tensor_proto.string_val[0].decode() for e in read(run_dir).Tensors(tag)]


def test_settings_can_be_compared_by_their_score(tmp_path):
    write(tmp_path, (0, {"eval/pass@1": 0.25}))
    found = read(tmp_path).PluginTagToContent("hparams")
    start = plugin_data_pb2.HParamsPluginData.FromString(found["_hparams_/session_start_info"])
    assert start.session_start_info.hparams["train.steps"].number_value == 3
    top = plugin_data_pb2.HParamsPluginData.FromString(found["_hparams_/experiment"])
    assert [info.name.tag for info in top.experiment.metric_infos] == ["eval/pass@1"]
    write(tmp_path / "without", (0, {"eval/pass@1": 0.25}), hparams=False)
    with pytest.raises(KeyError):
        read(tmp_path / "without").PluginTagToContent("hparams")


ROWS = [
    {
        "prompt": [{"role": "user", "content": "1+1="}],
        "response": f"# {reward}\n<script>x</script>",
        "reward": float(reward),
        "age": 0,
        "length": 7,
    }
    for reward in range(5)
]


def test_responses_are_shown_as_they_are_and_all_of_them_counted(tmp_path):
    tracker = TensorBoardTracker(TensorBoardConfig(samples=2, samples_every=2))
    tracker.start(str(tmp_path), {}, None)
    assert [step for step in range(1, 5) if tracker.wants_samples(step)] == [1, 3]
    tracker.log_samples(3, ROWS)
    tracker.close(failed=False)
    (text,) = texts(tmp_path, "samples/text_summary")
    worst, best = text.split("**reward ")[1:]
    assert worst.startswith("0, age 0, length 7**") and best.startswith("4, ")
    assert "\n    user: 1+1=\n" in worst
    assert "\n    # 0\n    <script>x</script>" in worst, "indented text is no markup"
    (found,) = read(tmp_path).Histograms("samples/reward")
    values = found.histogram_value
    assert (found.step, values.num, values.sum, values.max) == (3, 5, 10, 4)
    assert "samples/ratio" not in read(tmp_path).Tags()["histograms"]


@pytest.mark.parametrize(("samples", "histograms"), [(0, True), (2, False), (0, False)])
def test_texts_and_histograms_are_a_choice_each(tmp_path, samples, histograms):
    tracker = TensorBoardTracker(TensorBoardConfig(samples=samples, histograms=histograms))
    tracker.start(str(tmp_path), {}, None)
    assert tracker.wants_samples(1) == (samples > 0 or histograms)
    tracker.log_samples(1, ROWS)
    tracker.close(failed=False)
    tags = read(tmp_path).Tags()
    assert ("samples/text_summary" in tags["tensors"]) == (samples > 0)
    assert bool(tags["histograms"]) == histograms


def test_every_line_of_a_text_is_literal():
    assert literal("a\n\n# b") == "    a\n    \n    # b"
    assert as_markdown({"prompt": "p", "response": "r", "reward": 1.0}) == (
        "**reward 1**\n\n    p\n\n    r"
    )


def test_a_resumed_run_hides_what_the_interrupted_one_logged_beyond_its_checkpoint(tmp_path):
    write(tmp_path, (1, {"reward/mean": 0.1}), (2, {"reward/mean": 0.2}), (3, {"reward/mean": 9.0}))
    write(tmp_path, (2, {"reward/mean": 0.3}))
    seen = [(e.step, round(e.value, 3)) for e in read(tmp_path).Scalars("reward/mean")]
    assert seen == [(1, 0.1), (2, 0.3)]


def test_a_run_that_never_logged_leaves_no_event_file(tmp_path):
    write(tmp_path)
    assert not (tmp_path / "tensorboard").exists()

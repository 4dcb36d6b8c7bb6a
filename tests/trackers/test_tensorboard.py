"""TensorBoard: keys, values, steps, and what a resumed run leaves visible."""

from __future__ import annotations

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlkit.trackers.tensorboard import TensorBoardTracker


def read(run_dir) -> EventAccumulator:
    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    return events


def write(run_dir, *lines) -> None:
    tracker = TensorBoardTracker()
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
    (tag,) = read(tmp_path).Tags()["tensors"]
    text = read(tmp_path).Tensors(tag)[0].tensor_proto.string_val[0].decode()
    assert '"steps": 3' in text


def test_a_resumed_run_hides_what_the_interrupted_one_logged_beyond_its_checkpoint(tmp_path):
    write(tmp_path, (1, {"reward/mean": 0.1}), (2, {"reward/mean": 0.2}), (3, {"reward/mean": 9.0}))
    write(tmp_path, (2, {"reward/mean": 0.3}))
    seen = [(e.step, round(e.value, 3)) for e in read(tmp_path).Scalars("reward/mean")]
    assert seen == [(1, 0.1), (2, 0.3)]


def test_a_run_that_never_logged_leaves_no_event_file(tmp_path):
    write(tmp_path)
    assert not (tmp_path / "tensorboard").exists()

from __future__ import annotations

from rlkit.tasks.environment import EnvironmentTask, EnvironmentTaskConfig
from rlkit.tasks.identity import row_ids


def test_rows_are_numbers_for_an_environment_and_no_two_are_one_problem() -> None:
    data = EnvironmentTask(EnvironmentTaskConfig(size=3, eval_size=2, prompt="Play.")).load(0)
    rows = [*data.train, *data.eval]
    assert [row["problem"] for row in rows] == [0, 1, 2, 3, 4] and len(data.train) == 3
    assert all(row["prompt"] == [{"role": "user", "content": "Play."}] for row in rows)
    assert len(set(row_ids("environment", rows))) == 5

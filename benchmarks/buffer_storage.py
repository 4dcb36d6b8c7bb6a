"""Time per step and memory of a buffer whose responses are on disk.

    python benchmarks/buffer_storage.py --buffer fifo prioritized value_decay
    python benchmarks/buffer_storage.py --responses 8000 --tokens 200 --steps 20

Writes groups of responses through the buffer, as many per step as a step would generate, then runs
steps that draw a batch, add up every token of what was drawn, and store as many groups again. A
draw reads all of its responses from the disk. Prints the milliseconds of the draw, also its CPU
time, which does not grow when others use the machine, of the draw with the sums, and of storing;
and the memory the buffer adds against the bytes it has on disk. RssAnon is the memory of the
process itself; RSS also counts mapped pages of files, which the system takes back when it needs
them.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from rlkit.batch import Group, Prompt, Sample
from rlkit.interfaces import ReplayBuffer, RunContext
from rlkit.registry import build

GROUP = 8
PROMPT_TOKENS = 100


class Generator:
    """Numbered groups of random responses."""

    def __init__(self, tokens: int) -> None:
        self.tokens, self.made = tokens, 0
        self.random = torch.Generator().manual_seed(0)

    def groups(self, count: int, step: int) -> list[Group]:
        """`count` groups of a step."""
        return [self._group(step) for _ in range(count)]

    def _group(self, step: int) -> Group:
        name = f"prompt-{self.made // GROUP}"
        prompt = Prompt(
            prompt_id=name,
            text_or_messages=name * 20,
            ids=self._ids(PROMPT_TOKENS),
            columns={"answer": "42"},
        )
        return Group(prompt=prompt, samples=[self._sample(name, step) for _ in range(GROUP)])

    def _sample(self, name: str, step: int) -> Sample:
        self.made += 1
        reward = float(self.made % 3 == 0)
        return Sample(
            sample_id=self.made,
            prompt_id=name,
            response_ids=self._ids(self.tokens),
            loss_mask=torch.ones(self.tokens, dtype=torch.bool),
            behavior_logp=-torch.rand(self.tokens, generator=self.random),
            policy_version=torch.full((self.tokens,), step, dtype=torch.int32),
            reward=reward,
            rewards={"math": reward},
            finish_reason="stop",
            step=step,
        )

    def _ids(self, length: int) -> torch.Tensor:
        return torch.randint(150_000, (length,), generator=self.random)


def memory_mb() -> dict[str, float]:
    """RSS and RssAnon of this process (Linux)."""
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = {
        line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("Vm", "Rs"))
    }
    return {"RSS": int(fields["VmRSS"]) / 1024, "RssAnon": int(fields["RssAnon"]) / 1024}


def read_all(groups: list[Group]) -> float:
    """Touch every token of the groups."""
    samples = [sample for group in groups for sample in group.samples]
    columns = [
        [s.response_ids for s in samples],
        [s.loss_mask for s in samples],
        [s.behavior_logp for s in samples],
        [s.policy_version for s in samples],
    ]
    return sum(float(torch.cat(column).sum()) for column in columns)


def timed_steps(
    buffer: ReplayBuffer[Any], generator: Generator, options: argparse.Namespace, first: int
) -> Iterator[tuple[float, float, float, float]]:
    """Milliseconds of each step's draw, of the processor for it, with the sums, of storing."""
    for step in range(first, first + options.steps):
        fresh = generator.groups(buffer.fresh_share(options.batch), step)
        started, busy = time.perf_counter(), time.process_time()
        drawn = buffer.build([], options.batch, step)
        made, busy = time.perf_counter() - started, time.process_time() - busy
        read_all(drawn)
        middle = time.perf_counter()
        buffer.add(fresh, step)
        stored = time.perf_counter() - middle
        yield made * 1e3, busy * 1e3, (middle - started) * 1e3, stored * 1e3


def measure(name: str, options: argparse.Namespace, folder: Path) -> None:
    """Fill one buffer, run its steps and print its measurements."""
    groups = options.responses // GROUP
    generator = Generator(options.tokens)
    share = build("buffer", name, **settings(name, options, 1)).fresh_share(options.batch)
    last = -(-groups // share)
    buffer = build("buffer", name, **settings(name, options, last))
    buffer.open(RunContext(folder=folder))
    before = memory_mb()
    for step in range(1, last + 1):
        buffer.add(generator.groups(min(share, groups - share * (step - 1)), step), step)
    buffer.state_dict()  # writes the unfinished shard
    after = memory_mb()
    disk = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
    print(f"{name}: {len(buffer)} responses, {disk:.0f} MiB on disk")
    report_memory("written", before, after, disk)
    columns = zip(*timed_steps(buffer, generator, options, last + 1), strict=True)
    for label, times in zip(("draw", "processor", "draw and sum", "store"), columns, strict=True):
        p95 = statistics.quantiles(times, n=20)[-1]
        print(f"  {label:14} median {statistics.median(times):6.1f} ms  95th {p95:6.1f} ms")
    report_memory("after steps", before, memory_mb(), disk)


def settings(name: str, options: argparse.Namespace, last: int) -> dict[str, Any]:
    """Fields under which nothing leaves while it is measured; `last` steps fill the buffer."""
    room: dict[str, Any] = {"capacity": (last + options.steps) * options.batch}
    if name == "fifo":
        room = {"window": last + options.steps}
    return {"storage": "disk", "replay_fraction": options.replay_fraction} | room


def report_memory(
    label: str, before: dict[str, float], after: dict[str, float], disk: float
) -> None:
    """Each kind of memory that was added, and its share of the bytes on disk."""
    for kind in before:
        added = after[kind] - before[kind]
        print(f"  {label:14} {kind:8} +{added:.0f} MiB, {added / disk:.1%} of the disk")


def main() -> None:
    """Measure every buffer that is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--buffer", nargs="+", default=["fifo"])
    parser.add_argument("--responses", type=int, default=200_000)
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--replay-fraction", type=float, default=0.4)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.buffer:
        with tempfile.TemporaryDirectory() as folder:
            measure(name, options, Path(folder))


if __name__ == "__main__":
    main()

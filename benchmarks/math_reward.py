"""Answers per second and memory of the reward `math`, over completions like those of a policy.

    python benchmarks/math_reward.py --answers 20000 --out benchmarks/results/math_reward.json

A batch holds right and wrong answers of many kinds, each in its own text, and with --bombs a
few that run into bounds. After each batch the resident memory of this process and its workers is
noted. The table gives answers per second and the memory after the first and after the last batch.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

from rlkit.rewards.math.reward import Math, MathConfig

KINDS = (
    ("{a}", "{a}.0"),
    (r"\frac{{{a}}}{{{b}}}", r"{a}/{b}"),
    (r"{a}\sqrt{{{b}}}", r"\sqrt{{{b}}} \cdot {a}"),
    ("({a}, {b})", "({a},{b})"),
    (r"\{{{a}, {b}\}}", r"\{{{b}, {a}\}}"),
    ("(x+{a})(x-{b})", "(x-{b})(x+{a})"),
    ("[{a}, {a}{b})", "[{a},{a}{b})"),
    (r"{a}\pi", r"\pi \cdot {a}"),
    (r"{a}\%", r"\frac{{{a}}}{{100}}"),
    ("y = {a}x + {b}", "{b} + {a}x"),
    (r"\sqrt{{{a}}} + \sqrt{{{b}}}", r"\frac{{{a}+\sqrt{{{a}}}\sqrt{{{b}}}}}{{\sqrt{{{a}}}}}"),
    (r"{a}^{{{b}}}", r"{a}^{{{b}}}"),
)
BOMBS = ("9**9**9**9", "1+" * 50_000 + "1", r"\sqrt{" * 300 + "2" + "}" * 300)


def pair(rng: random.Random, bombs: bool) -> tuple[str, str]:
    """A gold answer and a completion that gives it, another one, or a bomb."""
    gold, same = rng.choice(KINDS)
    a, b = rng.randint(2, 99), rng.randint(2, 99)
    wrong = b + rng.randint(0, 1)
    answer = same.format(a=a, b=wrong)
    if bombs and rng.random() < 0.001:
        answer = rng.choice(BOMBS)
    text = f"We try {a} and {b}, and so we get \\boxed{{{answer}}}. " + "That is it. " * 20
    return gold.format(a=a, b=b), text


def resident_mb(pid: int | str) -> float:
    """The resident memory of a process in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def measure(answers: int, batch: int, workers: int, bombs: bool) -> dict[str, object]:
    """Judge `answers` answers in batches and return the measurements."""
    rng = random.Random(0)
    reward = Math(MathConfig(workers=workers))
    memory: list[list[float]] = []
    seconds = right = 0.0
    reward([""], [r"\boxed{1}"], answer=["1"], completion_ids=[[]])
    for _ in range(answers // batch):
        golds, texts = zip(*(pair(rng, bombs) for _ in range(batch)), strict=True)
        start = time.perf_counter()
        marks = reward([""] * batch, texts, answer=golds, completion_ids=[[]] * batch)
        seconds += time.perf_counter() - start
        right += sum(mark or 0.0 for mark in marks)
        pids: list[int | str] = ["self", *(worker.pid for worker in reward._pool.workers)]
        memory.append([round(resident_mb(pid), 1) for pid in pids])
    figures = {
        "answers": len(memory) * batch,
        "workers": workers,
        "bombs": bombs,
        "share_right": round(right / (len(memory) * batch), 3),
        "answers_per_second": round(len(memory) * batch / seconds),
        "mib_after_first_batch": memory[0],
        "mib_halfway": memory[len(memory) // 2],
        "mib_after_last_batch": memory[-1],
        "counts": reward.counts(),
    }
    reward.close()
    return figures


def main() -> None:
    """Measure with and without bombs and print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--answers", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = [
        measure(options.answers, options.batch, options.workers, bombs) for bombs in (False, True)
    ]
    text = json.dumps(rows, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()

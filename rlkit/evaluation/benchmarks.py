"""The benchmarks that are known by name: where their problems are, and what is wrong with them.

rlkit ships none of the data: a folder of files is read, or the Hugging Face hub is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rlkit.evaluation.golds import ReadGold, as_written, behind_hashes, minerva, olympiadbench


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSet:
    """A data set of the Hugging Face hub."""

    name: str
    split: str = "test"
    subset: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A set of problems with verifiable answers."""

    name: str
    """As it is asked for, and the stem of its file."""
    title: str
    count: int
    """How many problems it has; another number is told."""
    hub: HubSet
    flaws: str
    """What to know before a score is compared with a published one."""
    gold: ReadGold = as_written
    also: tuple[str, ...] = ()
    """Other stems that its file may have."""


ALL = (
    Benchmark(
        name="math500",
        title="MATH-500",
        count=500,
        hub=HubSet(name="HuggingFaceH4/MATH-500"),
        flaws="Some problems refer to a figure that is given as code. Training sets that draw on "
        "the 12,000 problems of MATH's other split contain test problems of MATH.",
    ),
    Benchmark(
        name="aime24",
        title="AIME 2024",
        count=30,
        hub=HubSet(name="HuggingFaceH4/aime_2024", split="train"),
        flaws="30 problems: one more solved problem is 3.3 points; average over many samples.",
    ),
    Benchmark(
        name="aime25",
        title="AIME 2025",
        count=30,
        hub=HubSet(name="math-ai/aime25"),
        flaws="30 problems, as AIME 2024. Some copies write one answer as 336^\\circ or 070; "
        "both are read as the number.",
    ),
    Benchmark(
        name="amc23",
        title="AMC 12 2023",
        count=40,
        hub=HubSet(name="math-ai/amc23"),
        flaws="The 40 problems of Qwen2.5-Math. What ReMix, DeepScaleR, Dr. GRPO and TTRL call "
        "AMC'23 has 83 problems: that is amc22_23.",
    ),
    Benchmark(
        name="amc22_23",
        title="AMC 12 2022 and 2023",
        count=83,
        hub=HubSet(name="AI-MO/aimo-validation-amc", split="train"),
        flaws="Published as AMC'23 by ReMix, DeepScaleR, Dr. GRPO and TTRL; contains amc23. Four "
        "problems mention a figure.",
    ),
    Benchmark(
        name="minerva",
        title="Minerva (OCWCourses)",
        count=272,
        hub=HubSet(name="math-ai/minervamath"),
        gold=minerva,
        also=("minerva_math",),
        flaws="Physics and chemistry with rounded numbers: a real number may be off by 1 %. The "
        "original key is wrong for 6 problems and ambiguous for 3, that of ReMix and DeepScaleR "
        "is wrong for 32 (it took the answer to the part before): at best 98 and 88 %. A score "
        "must name its key (--key). Some prompts contain the solution of an earlier part.",
    ),
    Benchmark(
        name="olympiadbench",
        title="OlympiadBench",
        count=675,
        hub=HubSet(name="Hothan/OlympiadBench", subset="OE_TO_maths_en_COMP", split="train"),
        gold=olympiadbench,
        flaws="The open-ended, text-only mathematics in English. 94 problems have several answers, "
        "all of which must be given; 8 have a unit, which may be left out; one allows an error of "
        "0.1. The hub's copy has 674 problems.",
    ),
    Benchmark(
        name="gsm8k",
        title="GSM8K",
        count=1319,
        hub=HubSet(name="openai/gsm8k", subset="main"),
        gold=behind_hashes,
        also=("gsm8k_test",),
        flaws="A few per cent of the answers are wrong or the problems ambiguous; GSM8K-Platinum "
        "is the audited version.",
    ),
)
BENCHMARKS: Mapping[str, Benchmark] = {benchmark.name: benchmark for benchmark in ALL}


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Benchmarks with the settings that a paper evaluates them with."""

    name: str
    benchmarks: tuple[str, ...]
    samples: Mapping[str, int]
    """Samples of each problem where that is not 1."""
    temperature: float
    max_tokens: int
    template: str
    key: str
    origin: str


REMIX = Suite(
    name="remix",
    benchmarks=("aime24", "amc22_23", "math500", "minerva", "olympiadbench"),
    samples={"aime24": 32, "amc22_23": 32},
    temperature=0.1,
    max_tokens=8192,
    template="remix",
    key="remix",
    origin="ReMix (arXiv:2507.06892): greedy, and temperature 0.1 with 32 samples of AIME and AMC; "
    "the macro average is that of its main table. The paper cuts prompts at 766 tokens; here none "
    "is cut.",
)
SUITES: Mapping[str, Suite] = {suite.name: suite for suite in (REMIX,)}

"""Self-reflection: the share of responses with a word that announces a second look.

The words are those of ReMix's analysis (arXiv:2507.06892, verl/utils/evaluation/utils.py of its
repository), looked for as it does: anywhere in the text, whatever the case. The list is permissive,
"but" and "check" count, so that only differences between models say something.
"""

from __future__ import annotations

WORDS = (
    *("verify", "re-examine", "double-check", "why", "root cause", "validate", "abduct"),
    *(
        "question",
        "check",
        "but",
        "wait",
        "confirm",
        "scrutinize",
        "analyze",
        "investigate",
        "probe",
    ),
)


def reflects(text: str) -> bool:
    """Whether a response holds any of the words."""
    lower = text.lower()
    return any(word in lower for word in WORDS)

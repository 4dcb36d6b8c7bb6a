r"""How a problem is put to the model: prompt templates of published evaluations, by name.

The texts are those of the sources word for word, since a model's score depends on every character.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rlkit.batch import Messages
from rlkit.errors import UserError, known_names, suggest
from rlkit.tasks.encode import Encoder

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
QWEN = (
    "<|im_start|>system\n" + INSTRUCTION + "<|im_end|>\n"
    "<|im_start|>user\n{problem}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
"""`qwen25-math-cot` of github.com/QwenLM/Qwen2.5-Math, evaluation/utils.py."""
QWEN_TOKEN, QWEN_END = "<|im_start|>", "<|im_end|>"
REMIX = " Let's think step by step and output the final answer within \\boxed{}."
"""What ReMix and DeepScaleR put behind a problem (github.com/AnitaLeungxx/ReMix-Off-Policy-RFT)."""
THINK = "<think>\n"
"""How DeepSeek-R1 begins its answers; its README advises to enforce it."""

Question = str | Messages
Template = Callable[[str, Encoder], Question]
"""From a problem's text to a prompt: text exactly as the model reads it, or messages."""


def chat(problem: str, encoder: Encoder) -> Question:
    """The model's own chat template, with the instruction behind the problem."""
    if not encoder.has_template:
        raise UserError(
            "--template chat needs a model with a chat template; use --template plain for this one"
        )
    return [{"role": "user", "content": f"{problem}\n{INSTRUCTION}"}]


def plain(problem: str, encoder: Encoder) -> Question:
    """The problem and the instruction as text, for a base model."""
    return f"{problem}\n{INSTRUCTION}\n"


def bare(problem: str, encoder: Encoder) -> Question:
    """The problem and nothing else, as text."""
    return problem


def qwen25_math(problem: str, encoder: Encoder) -> Question:
    """The instruction as a system message, in ChatML, whatever the model's own template is."""
    if QWEN_TOKEN not in encoder.tokenizer.get_vocab():
        raise UserError(
            f"--template qwen2.5-math writes {QWEN_TOKEN}, which is no token of this model; use "
            "--template chat, or plain for a base model"
        )
    return QWEN.replace("{problem}", problem)


def deepseek_r1(problem: str, encoder: Encoder) -> Question:
    """No system message, the instruction behind the problem, and the answer begun with <think>."""
    return thinking(f"{problem}\n{INSTRUCTION}", encoder, "deepseek-r1")


def remix(problem: str, encoder: Encoder) -> Question:
    """The instruction of ReMix behind the problem, in the model's chat template as it is."""
    if not encoder.has_template:
        raise UserError("--template remix needs a model with a chat template; use --template plain")
    return [{"role": "user", "content": problem + REMIX}]


def thinking(content: str, encoder: Encoder, name: str) -> str:
    """What the chat template writes around a user's message, and "<think>" if it does not."""
    if not encoder.has_template:
        raise UserError(
            f"--template {name} needs a model with a chat template; use --template plain"
        )
    text = encoder.rendered([{"role": "user", "content": content}])
    return text if text.rstrip().endswith(THINK.rstrip()) else text + THINK


TEMPLATES: Mapping[str, Template] = {
    "chat": chat,
    "plain": plain,
    "none": bare,
    "qwen2.5-math": qwen25_math,
    "deepseek-r1": deepseek_r1,
    "remix": remix,
}


STOPS: Mapping[str, tuple[str, ...]] = {"qwen2.5-math": (QWEN_END,)}
"""What ends a response to a template besides the model's own end: a base model's is another."""


def template_for(name: str | None, tokenizer: Any) -> str:
    """The name of the template to use: the one asked for, or chat if the model has a template.

    Raises UserError for an unknown name.
    """
    if name is None:
        return "chat" if tokenizer.chat_template is not None else "plain"
    check_template(name)
    return name


def check_template(name: str, setting: str = "") -> None:
    """Raise UserError for an unknown name; the line begins with the setting that holds it."""
    if name not in TEMPLATES:
        known = known_names(name, list(TEMPLATES), "`rlkit eval --help`")
        near = suggest(name, TEMPLATES)
        raise UserError(f"{setting}there is no prompt template '{name}'.{near} {known}")


def question(name: str, prompt: Question, encoder: Encoder) -> Question:
    """A problem's prompt in a template; messages stay as they are.

    Raises UserError if the model's tokenizer does not suit the template.
    """
    return TEMPLATES[name](prompt, encoder) if isinstance(prompt, str) else prompt

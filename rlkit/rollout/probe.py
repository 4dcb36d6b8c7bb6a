"""The checks before the first step: is padding harmless, and does the engine sample what is scored?

Where padding reaches the tokens after it, or states of one row another, a run would go on with
log-probs that are no policy's. Status: our choice.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rlkit.batch import Prompt, Request
from rlkit.errors import UserError
from rlkit.interfaces import Tokens
from rlkit.models.policy import Policy
from rlkit.models.recompute import evaluating
from rlkit.ops import stream_rng
from rlkit.rollout.base import GenerationCall
from rlkit.rollout.precision import TOLERANCE_FLOAT32, rounding_bound, trainer_dtype
from rlkit.rollout.states import refusal
from rlkit.rollout.stops import Stops

if TYPE_CHECKING:
    from rlkit.rollout.hf import HFRollout

PROMPTS = (5, 1, 3, 2, 4)
"""Tokens of the prompts. A state with another count in the place of the sequences shows."""
RESPONSES = (2, 3, 6, 1, 5)
"""Tokens of the responses to each: three of six rows are full after two tokens, another two after
five, and the batch is then cut down to the rest."""
COUNTS = (2, 1, 1, 1, 1)
"""Responses to each prompt."""
PADDED = 3
"""How many of these prompts and responses the trainer's check reads."""
ATTEMPTS = 2
"""Draws of the probe, of which one must pass: that rounding makes a router choose another expert is
possible in one, and hardly in both."""


def check_trainer(policy: Policy, seed: int) -> None:
    """Raises UserError if the log-probs of a response depend on the padding of its batch.

    A padded batch is compared with each of its rows alone. Every rank must call it.
    """

    def compared(attempt: int) -> tuple[float, Tokens]:
        rng, allowed = stream_rng(seed, "probe/trainer", attempt), ordinary_tokens(policy)
        prompts, responses = (
            [torch.from_numpy(rng.choice(allowed, size)) for size in sizes[:PADDED]]
            for sizes in (PROMPTS, RESPONSES)
        )
        tokens = Tokens.of(prompts, responses)
        alone = [policy.logp(tokens.rows(torch.tensor([row])))[0] for row in range(PADDED)]
        return largest(policy.logp(tokens), alone), tokens

    with policy.full_weights():
        found = excess(policy, compared)
    if found is not None:
        raise UserError(
            f"a {type(policy.model).__name__} cannot be trained: the log-probs of a response "
            f"change by {found:.2g} nats with the padding of its batch, since the model does not "
            "keep padding out of its states or positions; use another model"
        )


def check_engine(engine: HFRollout[Any], policy: Policy) -> None:
    """Choose how the engine decodes: with shared prompts if its log-probs are then the trainer's.

    Raises UserError if they are not with the model's own cache either. The samples are drawn from
    streams of their own, with the engine's settings but for what ends a response: its rows end
    early because they are full.
    """
    engine.shares_prompts = True
    if _shares_prompts(engine, policy):
        return
    engine.shares_prompts = False
    found = _engine_excess(engine, policy)
    if found is not None:
        raise refusal(policy.model, f"its log-probs differ by {found:.2g} nats from the trainer's")


def _shares_prompts(engine: HFRollout[Any], policy: Policy) -> bool:
    from rlkit.rollout.shared_prompts import NotShareable  # imports transformers

    try:
        return _engine_excess(engine, policy) is None
    except NotShareable:
        return False


def _engine_excess(engine: HFRollout[Any], policy: Policy) -> float | None:
    """By how many nats the engine's log-probs differ from the trainer's, beyond rounding."""
    trial = copy.copy(engine)
    trial.ends = torch.zeros(0, dtype=torch.int64)
    trial.stops = Stops.of((), {})

    def compared(attempt: int) -> tuple[float, Tokens]:
        requests = probe_requests(policy, engine.seed, attempt)
        answers = trial.sample(GenerationCall(requests, ("probe", 0, attempt)))
        flat = [(r.ids, g) for r, group in zip(requests, answers, strict=True) for g in group]
        tokens = Tokens.of([ids for ids, _ in flat], [g.response_ids for _, g in flat])
        return largest(policy.logp(tokens), [g.logp for _, g in flat]), tokens

    return excess(policy, compared)


def ordinary_tokens(policy: Policy) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The ids of all tokens but special and added ones, which may stand for images."""
    tokenizer: Any = policy.tokenizer
    embedding: Any = policy.model.get_input_embeddings()
    every = np.arange(min(len(tokenizer), embedding.weight.shape[0]))
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    found = np.setdiff1d(every, np.array(sorted(special), dtype=np.int64))
    return found if len(found) else every


def probe_requests(policy: Policy, seed: int, attempt: int) -> list[Request]:
    """Random prompts of `PROMPTS` tokens each."""
    rng, allowed = stream_rng(seed, "probe/prompts", attempt), ordinary_tokens(policy)
    return [
        Request(
            prompt=Prompt(
                prompt_id=f"probe-{row}",
                text_or_messages="",
                ids=torch.from_numpy(rng.choice(allowed, PROMPTS[row])),
                columns={},
            ),
            n=COUNTS[row],
            max_tokens=RESPONSES[row],
        )
        for row in range(len(PROMPTS))
    ]


def largest(logp: Tensor, rows: Sequence[Tensor]) -> float:
    """The largest difference between the rows of [B, T], padded, and their own log-probs [T_i]."""
    pairs = zip(logp, rows, strict=True)
    return float(torch.stack([(a[: len(b)].cpu() - b.cpu()).abs().max() for a, b in pairs]).max())


def excess(policy: Policy, compared: Callable[[int], tuple[float, Tokens]]) -> float | None:
    """The difference in nats, if rounding does not explain it in any attempt."""
    found = 0.0
    with evaluating(policy.model):
        for attempt in range(ATTEMPTS):
            found, tokens = compared(attempt)
            if found <= TOLERANCE_FLOAT32:
                return None
            if found <= rounding_bound(policy, tokens, trainer_dtype(policy)):
                return None
    return found

"""TRL's DPOTrainer against a real update on the same pairs: loss and gradients, all in float64."""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

import rlkit
from buffers.pairs import Pairs, PairsConfig
from rlkit.batch import Group
from rlkit.interfaces import Reference, RunContext
from rlkit.models.policy import Policy
from rlkit.tasks.prompts import Prompts
from rlkit.tasks.read import read_rows
from rlkit.tasks.stream import PromptStream
from rlkit.training.prepare import TrainBatch, prepare
from tests.steps import parts, scorer, updater_of
from tests.tiny import make_policy
from tests.trl_losses import Accelerator

ROWS = [
    {"prompt": "1+2=", "chosen": "3", "rejected": "11,4"},
    {"prompt": "12+2=", "chosen": "12,14#14", "rejected": "4"},
    {"prompt": "9=", "chosen": "9,9", "rejected": "7#7,77,7"},
    {"prompt": "5+5+5=", "chosen": "10,15#15", "rejected": "10,10#10"},
    {"prompt": "0+1=", "chosen": "01#1", "rejected": "##"},
]
BETA = 0.7
"""With the policy moved this far, some pairs are beyond the kink of the hinge and some are not."""
CASES: list[dict[str, Any]] = [
    {"loss_type": "sigmoid"},
    {"loss_type": "sigmoid_norm"},
    {"loss_type": "hinge"},
    {"loss_type": "ipo", "length_normalize": True},
    {"loss_type": "exo_pair", "label_smoothing": 0.1},
    {"loss_type": "nca_pair"},
    {"loss_type": "robust"},
    {"loss_type": "robust", "label_smoothing": 0.1},
    {"loss_type": "bco_pair"},
    {"loss_type": "sppo_hard"},
    {"loss_type": "aot"},
    {"loss_type": "aot", "label_smoothing": 0.2},
    {"loss_type": "aot_unpaired"},
    {"loss_type": "aot_unpaired", "label_smoothing": 0.2},
    {"loss_type": "apo_zero"},
    {"loss_type": "apo_down"},
    {"loss_type": "discopop"},
    {"loss_type": "discopop", "discopop_tau": 2.0},
    {"loss_type": "sft"},
    {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
]


@contextmanager
def double() -> Generator[None]:
    """Log-probs, which are float32 in a run, are float64."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)


def moved(policy: Policy) -> None:
    """Go far from the reference."""
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in policy.model.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=draw))


def given_pairs(policy: Policy, folder: Path) -> list[Group]:
    """The rows of a file as `buffer=pairs` gives them."""
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    buffer = Pairs(PairsConfig(path=str(path)))
    buffer.open(RunContext(seed=1, read_rows=read_rows))
    prompts = PromptStream(Prompts("train", ROWS, policy.tokenizer), 1, 2, 16)
    buffer.plan(len(ROWS), 1, prompts)
    return buffer.build([], len(ROWS), 1)


def as_trl_reads_it(model: Any) -> Any:
    """A model with TRL's output head, by plain logits: log-probs of labels that are not -100."""

    def forward(labels: Tensor, *, fused_lm_head: bool, **inputs: Tensor) -> SimpleNamespace:
        assert fused_lm_head
        logp = model(**inputs).logits.log_softmax(-1)[:, :-1]
        wanted = labels[:, 1:]
        own = logp.gather(-1, wanted.clamp(min=0)[..., None])[..., 0]
        found = torch.where(wanted == -100, 0.0, own)
        zeros = torch.zeros_like(found)
        return SimpleNamespace(
            log_probs=found, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool()
        )

    return forward


def trl_loss(model: Any, reference: Any, groups: Sequence[Group], c: Any) -> Tensor:
    """The loss of TRL's trainer on these pairs."""
    examples = [
        {
            "prompt_ids": g.prompt.ids.tolist(),
            "chosen_ids": g.samples[0].response_ids.tolist(),
            "rejected_ids": g.samples[1].response_ids.tolist(),
        }
        for g in groups
    ]
    inputs = DataCollatorForPreference(pad_token_id=0)(examples)
    accelerator = Accelerator()
    accelerator.device = torch.device("cpu")  # type: ignore[attr-defined]
    accelerator.gather_for_metrics = accelerator.gather  # type: ignore[attr-defined]
    stub: Any = SimpleNamespace(
        model=SimpleNamespace(training=True, disable_input_require_grads=lambda: None),
        ref_model=as_trl_reads_it(reference),
        args=SimpleNamespace(discopop_tau=c.discopop_tau, gradient_checkpointing_kwargs=None),
        accelerator=accelerator,
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        loss_types=list(c.kinds),
        loss_weights=list(c.loss_weights or [1.0] * len(c.kinds)),
        beta=c.beta,
        label_smoothing=c.label_smoothing,
        use_weighting=False,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    with torch.no_grad():
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        sequences = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        base = stub.ref_model(labels=labels, fused_lm_head=True, **sequences).log_probs.sum(1)
    inputs["ref_chosen_logps"], inputs["ref_rejected_logps"] = base.chunk(2)
    loss: Tensor = DPOTrainer._compute_loss(stub, as_trl_reads_it(model), inputs, False)
    return loss


def exactly(batch: TrainBatch, reference: Reference) -> TrainBatch:
    """The batch with the reference's log-probs in float64; a run keeps them in float32."""
    exact = reference.logp(batch.tokens)
    torch.testing.assert_close(batch.loss.anchor_logp["base"].double(), exact, rtol=0, atol=1e-5)
    return replace(batch, loss=replace(batch.loss, anchor_logp={"base": exact}))


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_an_update_has_the_loss_and_the_gradients_of_trl(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prepared and updated as a run does, in micro-batches of one or two responses."""
    policy = make_policy()
    policy.model.double()
    reference = copy.deepcopy(policy.model)
    chosen = parts(advantage="group_mean")
    loss = rlkit.build("loss", "online_dpo", beta=BETA, **case)
    chosen = replace(chosen, loss=loss, anchor=rlkit.build("anchor", "base", beta=0.0))
    chosen.anchor.rebase(policy)
    moved(policy)
    groups = given_pairs(policy, tmp_path)
    base = chosen.anchor.reference("base")
    assert base is not None
    batch = prepare(groups, 1, chosen, scorer(policy))
    updater = updater_of(policy, chosen, micro_batch_tokens=40, max_grad_norm=1e9)
    gradients: dict[str, Tensor] = {}

    def keep() -> None:
        named = policy.model.named_parameters()
        gradients.update({name: p.grad.clone() for name, p in named if p.grad is not None})

    monkeypatch.setattr(updater.learner.optimizer, "step", keep)
    model = copy.deepcopy(policy.model).requires_grad_()
    with double():
        batch = exactly(batch, base)
        metrics = updater.run(batch, 1, 1).metrics
        theirs = trl_loss(model, reference, groups, loss.config)
    theirs.backward()
    assert metrics["policy/loss"] == pytest.approx(theirs.item(), rel=1e-12)
    assert gradients.keys() == {name for name, _ in model.named_parameters()}
    assert max(float(g.abs().max()) for g in gradients.values()) > 1e-3
    for name, p in model.named_parameters():
        torch.testing.assert_close(gradients[name], p.grad, rtol=1e-9, atol=1e-12)
    if case["loss_type"] == "hinge":
        assert 0 < margins_beyond(batch, policy) < len(groups)


def margins_beyond(batch: Any, policy: Policy) -> int:
    """How many pairs have a margin above 1 / beta."""
    with torch.no_grad():
        ratio = (policy.logp(batch.tokens) - batch.loss.anchor_logp["base"]) * batch.loss.mask
    score = ratio.sum(-1).view(-1, 2)
    return int((score[:, 0] - score[:, 1] > 1 / BETA).sum())


def test_every_loss_of_trl_is_compared() -> None:
    """The names that its configuration documents."""
    said = DPOConfig.__doc__ or ""
    text = said[said.index("Type of loss to use") : said.index("If multiple loss types")]
    known = text.split("`'")[1:]
    names = {word.partition("'")[0] for word in known}
    compared = {k for case in CASES for k in [case["loss_type"]] if isinstance(k, str)}
    assert names == compared and len(names) >= 15

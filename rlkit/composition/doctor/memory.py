"""Does the run fit into memory? An estimate from what the pieces take.

Trained weights, gradients, the optimizer's moments and float32 masters; the critic; references;
what one micro-batch saves for its backward, measured on a short one; and what the engine takes.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlkit.composition.doctor.answers import Answers
from rlkit.composition.doctor.check import Check, Notes, size
from rlkit.composition.doctor.patient import Patient
from rlkit.composition.doctor.scored import Answer, tokens_of
from rlkit.config.run import TrainConfig
from rlkit.models.critic import Critic
from rlkit.models.policy import Policy
from rlkit.models.rows import computed
from rlkit.rollout.base import EngineMemory, Generation
from rlkit.training.micro_batches import default_tokens
from rlkit.training.optimizers import hidden_matrices

NAME = "memory"
TIGHT = 0.85
"""A share of the memory from which on it is a warning."""
ROWS, LONGEST = 2, 128
"""Responses, and tokens of each, on which a micro-batch is measured."""
MOMENTS = {"adamw": 8.0, "adamw_8bit": 2.0, "muon": 8.0, "adafactor": 0.1}
"""Bytes of moments per trained weight, by optimizer; Muon's are 4 for hidden matrices."""
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
Sizes = dict[str, float]


def check(patient: Patient) -> Check:
    """Add up and compare with the memory of the model's device."""
    notes, policy = Notes(NAME), patient.policy
    parts = estimate(patient)
    needed, total = sum(parts.values()), device_memory(policy.device)
    words = ", ".join(f"{name} {size(count)}" for name, count in parts.items() if count >= 1e5)
    where = "this machine" if policy.device.type == "cpu" else "the GPU"
    finding = f"About {size(needed)} of the {size(total)} of {where}: {words}."
    notes.figures |= {"needed": needed, "total": total, **parts}
    advice = (
        "Lower train.micro_batch_tokens, set model.gradient_checkpointing=true, "
        "model.dtype=bfloat16, model.lora.r=16, train.optimizer=adamw_8bit or anchor.device=cpu, "
        "or shard the weights (docs/scaling.md)."
    )
    spared = parts.get("generating", 0.0) if engine_memory(patient).adapts else 0.0
    patient.fits = needed - spared <= total
    if needed > total and patient.fits:
        notes.warn(
            f"Not all responses of a step can be generated at once. {finding}",
            "Generation is then slower; shorter responses or model.dtype=bfloat16 help.",
        )
    elif needed > total:
        notes.problem(f"The run does not fit. {finding}", advice)
    elif needed > TIGHT * total:
        notes.warn(f"The run fits barely. {finding}", advice)
    else:
        notes.fine(finding)
    return notes.result()


def estimate(patient: Patient) -> Sizes:
    """Bytes by what takes them."""
    c, policy = patient.c, patient.policy
    parameters = list(policy.model.parameters())
    trained = training_bytes(policy.model, c.config.train)
    out: Sizes = {"weights": nbytes(parameters), "gradients and optimizer": trained}
    if c.parts.advantage.needs_critic:
        critic = Critic(weightless(policy.model), sees_age=c.parts.advantage.critic_sees_age)
        out["critic"] = nbytes(critic.parameters()) + training_bytes(critic, c.config.train)
    out["references"] = reference_bytes(patient)
    tokens = c.config.train.micro_batch_tokens or default_tokens(policy.device)
    once, per_token = saved(policy, patient.answers)
    batch, engine = once + tokens * per_token, engine_memory(patient)
    if patient.beside:
        own = {"generating": engine.generating, "the engine's weights": engine.weights}
        return out | {"a micro-batch": batch} | own
    if engine.generating > batch + engine.training:  # the two do not happen at the same time
        return out | {"generating": engine.generating}
    return out | {"a micro-batch": batch, "the engine": engine.training}


def engine_memory(patient: Patient) -> EngineMemory:
    """What the engine takes for a step's responses, each as long as it may be."""
    c, policy = patient.c, patient.policy
    responses = c.buffer.fresh_share(c.config.train.prompts_per_step)
    responses *= c.engine.config.num_generations
    tokens = patient.problems.longest + c.engine.config.max_completion_length
    found = c.engine.memory(policy, responses, tokens)
    return found or EngineMemory(generating=0.0, training=0.0)


def training_bytes(model: Any, train: TrainConfig) -> float:
    """Gradients and moments of the trained weights, and masters of half-precision ones."""
    hidden = hidden_matrices(model) if train.optimizer == "muon" else set()
    total = 0.0
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        master = 4 if weight.element_size() < 4 else 0
        moments = 4.0 if name in hidden else MOMENTS[train.optimizer]
        total += weight.numel() * (4 + master + moments)
    return total


def reference_bytes(patient: Patient) -> float:
    """What the anchor holds beside the policy, on its device: copies, averages, a loaded model."""
    policy, anchor = patient.policy, patient.anchor
    own = {weight.data_ptr() for weight in policy.model.parameters()}
    read = [each.state_dict() for each in patient.c.parts.references(1).values() if each]
    held = {
        weight.data_ptr(): weight.nbytes
        for weight in tensors_in([anchor.state_dict(), read])
        if weight.device == policy.device and weight.data_ptr() not in own
    }
    return float(sum(held.values()))


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """The tensors of nested mappings and lists."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping | list):
        for part in tree.values() if isinstance(tree, Mapping) else tree:
            yield from tensors_in(part)


def saved(policy: Policy, answers: Answers) -> tuple[float, float]:
    """Bytes that a forward saves for its backward: once, and per token that it computes.

    From two lengths, since autocast saves a copy of each weight however few the tokens are.
    """
    longest = sorted(answers.flat, key=lambda answer: -len(answer[1].response_ids))[:ROWS]
    (fewer, less), (more, most) = (
        saved_by(policy, [(p, cut(g, share)) for p, g in longest]) for share in (0.5, 1.0)
    )
    if more == fewer:
        return 0.0, most / more
    per_token = (most - less) / (more - fewer)
    return max(0.0, most - per_token * more), per_token


def cut(answer: Generation, share: float) -> Generation:
    """A share of what is measured of a response, at least a token."""
    length = min(LONGEST, len(answer.response_ids))
    return replace(answer, response_ids=answer.response_ids[: max(1, int(share * length))])


def saved_by(policy: Policy, few: Sequence[Answer]) -> tuple[int, float]:
    """Tokens that one forward computes, and the bytes that it saves."""
    tokens = tokens_of(few)
    weights = {p.untyped_storage().data_ptr() for p in policy.model.parameters()}
    found: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        terms = policy.terms(tokens, "value")
    del terms
    return computed(tokens, policy.layout), float(sum(found.values()))


def weightless(model: nn.Module) -> Any:
    """A copy of a model whose tensors take no memory."""
    memo: dict[int, Any] = {
        id(weight): nn.Parameter(torch.empty_like(weight, device="meta"), weight.requires_grad)
        for weight in model.parameters()
    }
    memo |= {id(held): torch.empty_like(held, device="meta") for held in model.buffers()}
    return copy.deepcopy(model, memo)


def nbytes(tensors: Iterable[Tensor | nn.Parameter]) -> float:
    """Bytes of some tensors."""
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))


def device_memory(device: torch.device) -> float:
    """All memory of a device: of a GPU, or of the machine as far as this process may use it."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[1])
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in map(Path, LIMITS):
        text = path.read_text().strip() if path.is_file() else "max"
        if text.isdigit():
            total = min(total, int(text))
    return float(total)

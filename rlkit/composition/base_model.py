"""Where the model is that a run begins with."""

from __future__ import annotations

from rlkit.composition.composition import Composition
from rlkit.composition.model_path import check_exists
from rlkit.config.run import EMBEDDED
from rlkit.errors import UserError
from rlkit.models.load import found_source
from rlkit.tasks.arithmetic import CALLS


def check_base(c: Composition) -> None:
    """Check that one embedded model, if the run has it, knows all it is for. Raises UserError."""
    if c.config.model.name != EMBEDDED:
        return
    if c.task.embedded and c.eval_task.embedded and c.task.base != c.eval_task.base:
        raise UserError(
            f"the embedded model of these problems is another than that of eval.task="
            f"{c.config.eval.task}; leave eval.task out"
        )
    if c.environment is not None and not (c.environment.embedded and c.task.base == CALLS):
        raise UserError(
            "the embedded model calls no tool but environment=calculator, and with it knows "
            "task=arithmetic as it comes (task.operands=3 task.digits=3) alone; leave the others "
            "out, or set model.name to a chat model"
        )


def check_model(c: Composition) -> None:
    """Check that model.name is no path without a model, and load none. Raises UserError."""
    if c.given.model is None and c.config.model.name != EMBEDDED:
        found_source(c.config.model.name, c.config.model.name)
        check_exists(c.config.model.name)  # one that looks like a name of the hub, beside runs


def model_folder(c: Composition) -> str:
    """The name or folder of the model; an embedded one is made on first use."""
    check_base(c)
    if c.config.model.name != EMBEDDED:
        return c.config.model.name
    return embedded_folder(c)


def embedded_folder(c: Composition) -> str:
    """The folder of the embedded model that knows this run's problems; made on first use."""
    if c.task.base == CALLS:
        from rlkit.models.embedded_calls import calls_model_dir

        return str(calls_model_dir(c.config.model.base_seed))
    from rlkit.models.embedded import embedded_model_dir

    return str(embedded_model_dir(c.config.model.base_seed))

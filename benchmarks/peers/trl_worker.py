"""TRL's side of the comparison, in a process of its own: `python trl_worker.py request.json`.

Writes seconds, and with `check` losses and gradient norms, of each step as JSON. TRL's fused output
layer is on, as always in this version; nothing is logged, saved or evaluated while it is timed.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from peers import reward

LOADED = "The model is loaded"


class Stopwatch(TrainerCallback):
    """Seconds of each step, from the first micro-batch to the optimizer's end."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.logs: list[dict[str, float]] = []

    def on_step_begin(self, *given: Any, **more: Any) -> None:
        """A step begins."""
        self.started = time.perf_counter()

    def on_step_end(self, *given: Any, **more: Any) -> None:
        """A step ends, on the device too."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.started)

    def on_log(self, *given: Any, logs: dict[str, float] | None = None, **more: Any) -> None:
        """Metrics of a step."""
        self.logs.append(dict(logs or {}))


class Timed(GRPOTrainer):
    """Notes the seconds of generation; with `replay` it takes given responses in place of its own.

    `replay` holds the token ids of each step's responses.
    """

    generation: list[float]
    replay: list[list[list[int]]] | None

    def _generate(self, prompts: list[Any]) -> Any:
        started = time.perf_counter()
        out = super()._generate(prompts)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.generation.append(time.perf_counter() - started)
        return out

    def _generate_single_turn(self, *given: Any, **more: Any) -> Any:
        if self.replay is None:
            return super()._generate_single_turn(*given, **more)  # type: ignore[no-untyped-call]
        return self.replay.pop(0), None


def arguments(request: dict[str, Any]) -> dict[str, Any]:
    """TRL's settings: those of the case, and its best on the device."""
    rows = request["trl_rows"]
    return {
        "loss_type": "grpo",
        "epsilon": 0.2,
        "scale_rewards": "group",
        "beta": request["beta"],
        "num_iterations": 1,
        "num_generations": request["n"],
        "max_completion_length": request["tokens"],
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": request["responses"] // rows,
        "learning_rate": request["learning_rate"],
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "optim": "adamw_torch_fused",
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "gradient_checkpointing": False,
        "bf16": request["dtype"] == "bfloat16",
        "use_cpu": request["device"] == "cpu",
        "max_steps": request["steps"],
        "seed": request["seed"],
        "shuffle_dataset": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": request["device"] != "cpu",
        "logging_strategy": "steps" if request["check"] else "no",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def main(path: Path) -> None:
    """Train as requested."""
    request = json.loads(path.read_text())
    torch.manual_seed(request["seed"])
    model = AutoModelForCausalLM.from_pretrained(request["model"], dtype=torch.float32)
    model.to(request["device"])
    tokenizer = AutoTokenizer.from_pretrained(request["model"])
    print(LOADED)
    rows = [json.loads(line) for line in Path(request["data"]).read_text().splitlines()]
    watch = Stopwatch()
    trainer = Timed(
        model=model,
        reward_funcs=getattr(reward, request["reward"]),
        args=GRPOConfig(output_dir=request["scratch"], **arguments(request)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[watch],
    )
    trainer.generation, trainer.replay = [], request["replay"]
    trainer.train()
    cuda = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None
    found = {
        "seconds": watch.seconds,
        "generation": trainer.generation,
        "logs": watch.logs,
        "cuda_mb": cuda,
        "arguments": arguments(request),
    }
    Path(request["out"]).write_text(json.dumps(found))
    if request["check"]:
        trainer.save_model(request["scratch"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Small files in the layouts of other tools."""

from __future__ import annotations

import json
import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save


def trl(path: Path) -> Path:
    """Step 3, two prompts of two completions each, as messages and as texts."""
    chat = [{"role": "user", "content": "1+1="}]
    table = pa.table(
        {
            "step": [3, 3],
            "prompt": [chat, chat],
            "completion": [[{"role": "assistant", "content": text}] for text in ("2", "3")],
            "accuracy_reward": [1.0, 0.0],
            "format_reward": [0.5, 0.5],
            "advantage": [1.0, -1.0],
        }
    )
    pq.write_table(table, path)
    return path


def verl(path: Path) -> Path:
    rows = [
        {"input": "1+1=", "output": text, "gts": "2", "score": score, "step": 7, "acc": score}
        for text, score in (("2", 1.0), ("3", 0.0))
    ] + [{"input": "2+2=", "output": "4", "gts": "4", "score": 1.0, "step": 7, "acc": 1.0}]
    return lines(path, rows)


def slime(path: Path, **changes: Any) -> Path:
    sample = {
        "group_index": 5,
        "index": 0,
        "prompt": "1+1=",
        "tokens": [4, 5, 6, 7, 8],
        "response": "2",
        "response_length": 2,
        "label": "2",
        "reward": 1.0,
        "loss_mask": [1, 0],
        "rollout_log_probs": [-0.5, -0.25],
        "status": "truncated",
        "metadata": {},
    }
    other = {**sample, "status": "aborted"}
    torch.save({"rollout_id": 2, "samples": [{**sample, **changes}, other]}, path)
    return path


def openai(path: Path, *, chat: bool = True, **changes: Any) -> Path:
    choice = {
        "message": {"role": "assistant", "content": "12"},
        "finish_reason": "stop",
        "logprobs": {
            "content": [{"token": "1", "logprob": -0.5}, {"token": "2", "logprob": -0.125}]
        },
        "reward": 1.0,
    }
    plain = {"message": {"content": "7"}, "finish_reason": "length", "reward": 0.0}
    messages = [{"role": "user", "content": "5+7="}]
    request: dict[str, Any] = {"messages": messages} if chat else {"prompt": "5+7="}
    return lines(path, [{**request, "choices": [{**choice, **changes}, plain]}])


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def trinity_line(**changes: Any) -> dict[str, Any]:
    """An experience's dict, as Trinity-RFT's FileStorage writes it."""
    return {
        "eid": {"batch": 3, "task": 0, "run": 0, "step": 0, "suffix": "a1b2c3"},
        "type": "single_turn",
        "prompt_length": 4,
        "response_length": 2,
        "info": {"model_version": 6},
        "metrics": {"accuracy": 1.0, "format": 0.5},
        "prompt_text": "1+1=",
        "response_text": "2",
        "reward": 1.5,
        **changes,
    }


def trinity_bytes(tensors: dict[str, torch.Tensor], pickled: bytes = b"") -> bytes:
    """A serialized experience: header, pickle, safetensors."""
    packed = save({f"0:{name}": tensor for name, tensor in tensors.items()})
    return b"TRXP" + struct.pack("<BQQ", 1, len(pickled), len(packed)) + pickled + packed


def trinity(path: Path, rows: list[dict[str, Any]], *, apart: bool = False) -> Path:
    """A table of experiences, or one of what is known of them and one of their bytes."""
    with closing(sqlite3.connect(path)) as database:
        kinds = "task_id TEXT, run_id INTEGER, model_version INTEGER, reward REAL, prompt TEXT"
        bytes_of = "" if apart else ", experience_bytes BLOB"
        database.execute(
            f"CREATE TABLE exp (id INTEGER PRIMARY KEY, {kinds}, response TEXT{bytes_of})"
        )
        database.execute("CREATE TABLE exp_blob (id INTEGER PRIMARY KEY, experience_bytes BLOB)")
        for number, row in enumerate(rows, start=1):
            own = {n: v for n, v in row.items() if not apart or n != "experience_bytes"}
            tables = {"exp": {"id": number, **own}}
            if apart:
                data = row["experience_bytes"]
                tables["exp_blob"] = {"id": number, "experience_bytes": data}
            for table, values in tables.items():
                marks = ", ".join("?" * len(values))
                names = ", ".join(values)
                database.execute(
                    f"INSERT INTO {table} ({names}) VALUES ({marks})", [*values.values()]
                )
        database.commit()
    return path

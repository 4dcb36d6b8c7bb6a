"""A tiny random model of every causal architecture in transformers, made from its configuration."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from rlkit.errors import UserError
from rlkit.models.policy import Policy
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.layout import choose_layout
from rlkit.rollout.probe import check_trainer
from tests.tiny import make_tokenizer

KINDS: tuple[str, ...] = tuple(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
FAMILIES = (
    "llama",
    "gpt2",
    "mistral",
    "gemma3n_text",
    "qwen3_next",
    "qwen3_5_text",
    "qwen4_exp_text",
    "mamba",
    "mamba2",
    "jamba",
    "lfm2",
    "falcon_h1",
    "nemotron_h",
    "minimax",
    "kimi_linear",
    "zaya",
    "glm_moe_dsa",
)
"""One for each form of cache: whole, of a window, shared, recurrent, hybrid, indexed, their own."""
MOST = 4_000_000
"""Parameters of a tiny model, at most."""
SIZES = {
    64: """max_position_embeddings n_positions n_ctx max_seq_len max_target_positions context_length
        mamba_d_ssm index_topk ngram_vocab_size_base""",
    32: """hidden_size d_model n_embd dim_model embedding_size word_embed_proj_dim embedding_dim
        input_embedding_size output_embedding_size pronunciation_embed_dim shape_embed_dim
        ple_embed_dim lru_width router_hidden_size dim_model_base inner_dim intermediate_size
        ffn_dim dim_ff dff d_inner emb_dim d_ff n_inner ffn_hidden_size feed_forward_size
        intermediate_size_mlp dense_intermediate_size decoder_ffn_dim encoder_ffn_dim
        moe_intermediate_size expert_ffn_hidden_size shared_intermediate_size
        shared_expert_intermediate_size moe_shared_expert_intermediate_size""",
    16: """vocab_size decoder_vocab_size vocab_size_per_layer_input head_dim kv_channels dim_head
        d_head swa_head_dim global_head_dim attention_head_size v_head_dim qk_head_dim kv_lora_rank
        q_lora_rank mamba_d_head mamba_head_dim linear_head_dim index_head_dim""",
    8: """qk_rope_head_dim qk_nope_head_dim mamba_d_state state_size ssm_state_size chunk_size
        mamba_chunk_size linear_key_head_dim linear_value_head_dim num_mel_bins rotary_dim
        hidden_size_per_layer_input""",
    4: """num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers
        num_decoder_layers num_blocks num_experts n_routed_experts num_local_experts
        moe_num_experts mamba_n_heads mamba_num_heads time_step_rank mamba_dt_rank sliding_window
        attention_window_size adapter_rank""",
    2: """num_attention_heads n_head n_heads num_heads num_key_value_heads num_kv_heads
        decoder_attention_heads num_decoder_attention_heads attention_heads num_encoder_layers
        encoder_attention_heads num_encoder_attention_heads num_experts_per_tok
        num_experts_per_token moe_topk moe_k linear_num_key_heads linear_num_value_heads
        linear_num_heads swa_num_attention_heads swa_num_key_value_heads
        num_global_key_value_heads n_mamba_heads index_n_heads bos_token_id""",
    1: """n_group topk_group first_k_dense_replace num_dense_layers mamba_n_groups mamba_ngroups
        eos_token_id""",
    0: "pad_token_id",
}
FIELDS: dict[str, Any] = {
    **{name: size for size, names in SIZES.items() for name in names.split()},
    **{"is_decoder": True, "initializer_range": 0.2, "init_std": 0.2},
}
"""Of the configurations that have them."""
TWO_KINDS = ["linear_attention", "full_attention"] * 2
ATTENDING = ["linear_attention", "hybrid"] * 2
WINDOWS = ["sliding_attention", "full_attention"]
OWN: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1, 3]},
    "codegen": {"n_head": 4},
    "dots1": {"num_experts_per_tok": 2, "n_routed_experts": 4, "n_shared_experts": 1},
    "gemma3n_text": {
        "num_hidden_layers": 6,
        "layer_types": WINDOWS * 3,
        "num_kv_shared_layers": 2,
        "activation_sparsity_pattern": [0.0] * 6,
    },
    "gemma4_text": {"per_layer_config": {}, "layer_types": WINDOWS * 2},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": 4},
    "granitemoehybrid": {"layer_types": TWO_KINDS},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {"layer_types": TWO_KINDS},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 2},
    "mimo_v2_flash": {"head_dim": 24, "num_attention_heads": 8},
    "nemotron_h": {
        "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"],
        "n_groups": 2,
    },
    "qwen3_5_text": {"layer_types": TWO_KINDS},
    "qwen3_5_moe_text": {"layer_types": TWO_KINDS},
    "qwen3_next": {"layer_types": TWO_KINDS},
    "qwen4_exp_text": {
        "hc_lowrank": 8,
        "split_ngram_parts": 2,
        "make_ngram_vocab_size_divisible_by": 8,
        "layer_types": ["linear_attention", "indexed_attention"] * 2,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 64,
        "indexer_compress_ratio": 4,
    },
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {
        "axial_pos_embds": False,
        "attn_layers": ["local", "lsh"] * 2,
        "local_attn_chunk_length": 4,
        "lsh_attn_chunk_length": 4,
    },
    "zamba": {
        "layers_block_type": ATTENDING,
        "attention_hidden_size": 64,
        "attention_head_dim": 32,
    },
    "zamba2": {
        "layers_block_type": ATTENDING,
        "attention_hidden_size": 64,
        "attention_head_dim": 32,
        "mamba_headdim": 32,
    },
    "zaya": {"num_experts_per_tok": 1},
}
"""What an architecture needs beside, so that four layers hold all its kinds."""


def tiny_config(kind: str) -> PreTrainedConfig:
    """The configuration of an architecture, every size in it reduced."""
    return _reduced(CONFIG_MAPPING[kind])


def _reduced(cls: Any) -> PreTrainedConfig:
    own = OWN.get(cls.model_type, {})
    inner = {name: of for name, of in cls.sub_configs.items() if of is not AutoConfig}
    fields = cls(**{name: of() for name, of in inner.items()}).to_dict()
    chosen = {name: size for name, size in FIELDS.items() if name in fields}
    if "qk_rope_head_dim" in fields:
        chosen["head_dim"] = chosen["qk_rope_head_dim"]
    if fields.get("sliding_window", 0) is None:
        del chosen["sliding_window"]
    parts = {name: _reduced(of) for name, of in inner.items()}
    found: PreTrainedConfig = cls(**(chosen | parts | own))
    return found


def tiny_model(kind: str) -> Any:
    """A random model of a `model_type`, in evaluation mode. Raises ValueError if it is not tiny."""
    config = tiny_config(kind)
    with torch.device("meta"):
        empty: Any = AutoModelForCausalLM.from_config(config)
    count = sum(weight.numel() for weight in empty.parameters())
    if count > MOST:
        raise ValueError(f"{count // 1_000_000} million parameters")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).train(False)


def tiny_policy(kind: str) -> Policy:
    """A policy on a tiny model."""
    return Policy(tiny_model(kind), make_tokenizer(), 1.0)


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of an architecture."""

    kind: str
    name: str
    """The class of its models."""
    status: str
    """`works`, `padded` (it works, but is not packed), `refused`, `fails` in its own code, or `not
    built`."""
    reason: str = ""


def examined(kind: str) -> Finding:
    """Whether an architecture trains and generates as rlkit needs it."""
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]
    try:
        policy = tiny_policy(kind)
    except Exception as error:
        return Finding(kind, name, "not built", _line(error))
    try:
        check_trainer(policy, 0)
        HFRollout(HFConfig()).start(policy, 0)
        choose_layout(policy, "auto", 0)
    except UserError as error:
        return Finding(kind, name, "refused", str(error))
    except Exception as error:
        return Finding(kind, name, "fails", _line(error))
    return Finding(kind, name, "padded" if policy.layout == "padded" else "works")


def survey(kinds: Iterable[str] = KINDS) -> list[Finding]:
    """Every architecture, examined in turn."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [examined(kind) for kind in kinds]


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"

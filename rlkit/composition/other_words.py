"""Well-known settings of TRL, verl and vLLM, and what they are called here.

The same as the tables of docs/migrating.md; a test holds the two together.
"""

from __future__ import annotations

ACTOR = "actor_rollout_ref.actor"
MODEL = "actor_rollout_ref.model"
ROLLOUT = "actor_rollout_ref.rollout"
KL = "anchor=base and anchor.beta"

TRL = {
    "max_steps": "train.steps",
    "num_train_epochs": "train.steps (steps, not passes over the prompts)",
    "generation_batch_size": "train.prompts_per_step (responses over rollout.num_generations)",
    "steps_per_generation": "train.minibatches",
    "gradient_accumulation_steps": "train.minibatches",
    "num_iterations": "train.updates_per_batch",
    "per_device_train_batch_size": "train.micro_batch_tokens (tokens, not responses)",
    "num_generations": "rollout.num_generations",
    "max_prompt_length": "rollout.max_prompt_length",
    "max_completion_length": "rollout.max_completion_length",
    "temperature": "rollout.temperature",
    "top_p": "rollout.top_p",
    "top_k": "rollout.top_k",
    "learning_rate": "train.learning_rate",
    "weight_decay": "train.weight_decay",
    "max_grad_norm": "train.max_grad_norm",
    "lr_scheduler_type": "train.lr_scheduler_type",
    "warmup_steps": "train.warmup_steps",
    "warmup_ratio": "train.warmup_steps (steps, not a share of them)",
    "loss_type": "loss=<name>, such as loss=ppo for dapo",
    "importance_sampling_level": "loss=gspo for sequence",
    "epsilon": "loss.clip_low",
    "epsilon_high": "loss.clip_high",
    "delta": "loss.delta",
    "scale_rewards": "advantage=group_norm, advantage=group_mean for none, advantage.std=batch",
    "multi_objective_aggregation": "advantage=gdpo for normalize_then_sum",
    "reward_weights": "reward.<name>.weight, such as reward.math.weight",
    "reward_funcs": "reward=[<name>,./mine.py:my_reward]",
    "max_tool_calling_iterations": "turns.max (the policy's turns: theirs plus 1)",
    "beta": KL,
    "use_bias_correction_kl": "anchor.bias_correction=true and anchor.gradient_estimator=k3",
    "sync_ref_model": "anchor=tr_dpo",
    "ref_model_mixup_alpha": "anchor.alpha",
    "ref_model_sync_steps": "anchor.every",
    "mask_truncated_completions": "correction=[overlong_filter]",
    "entropy_coef": "correction=[entropy_bonus] and correction.entropy_bonus.coef",
    "off_policy_mask_threshold": "correction=[opsm] and correction.opsm.delta",
    "vllm_importance_sampling_correction": "correction=[tis]",
    "vllm_importance_sampling_mode": "correction=[tis], correction=[mis] or correction=[icepop]",
    "use_vllm": "rollout=vllm",
    "vllm_mode": "rollout=vllm or rollout=vllm_server",
    "vllm_server_base_url": "rollout.addresses",
    "disable_dropout": "model.dropout",
    "gradient_checkpointing": "model.gradient_checkpointing",
    "bf16": "model.autocast=bfloat16",
    "save_steps": "checkpoint.every",
    "save_total_limit": "checkpoint.keep",
    "eval_steps": "eval.every",
    "report_to": "tracker=[wandb]",
    "model_name_or_path": "model.name",
    "optim": "train.optimizer",
}
"""Of TRL's GRPOConfig."""

VERL = {
    "data.train_files": "task.path",
    "data.val_files": "task.eval_path",
    "data.train_batch_size": "train.prompts_per_step",
    f"{ACTOR}.ppo_mini_batch_size": "train.minibatches (train_batch_size / ppo_mini_batch_size)",
    f"{ACTOR}.ppo_epochs": "train.updates_per_batch",
    f"{ACTOR}.ppo_max_token_len_per_gpu": "train.micro_batch_tokens",
    f"{ACTOR}.ppo_micro_batch_size_per_gpu": "train.micro_batch_tokens (tokens, not responses)",
    "data.max_prompt_length": "rollout.max_prompt_length",
    "data.max_response_length": "rollout.max_completion_length",
    "data.filter_overlong_prompts": "task.overlong=drop",
    "data.prompt_key": "task.prompt_column",
    f"{MODEL}.path": "model.name",
    f"{MODEL}.lora_rank": "model.lora.r",
    f"{MODEL}.enable_gradient_checkpointing": "model.gradient_checkpointing",
    f"{ACTOR}.optim.lr": "train.learning_rate",
    f"{ACTOR}.grad_clip": "train.max_grad_norm",
    f"{ACTOR}.policy_loss.loss_mode": "loss=<name>, such as loss=ppo_dual_clip for vanilla",
    f"{ACTOR}.clip_ratio": "loss.clip_low and loss.clip_high",
    f"{ACTOR}.clip_ratio_low": "loss.clip_low",
    f"{ACTOR}.clip_ratio_high": "loss.clip_high",
    f"{ACTOR}.clip_ratio_c": "loss.dual_clip",
    f"{ACTOR}.loss_agg_mode": "loss.aggregation",
    f"{ACTOR}.entropy_coeff": "correction=[entropy_bonus]",
    f"{ACTOR}.use_kl_loss": KL,
    f"{ACTOR}.kl_loss_coef": "anchor.beta",
    f"{ACTOR}.kl_loss_type": "anchor.value_estimator and anchor.gradient_estimator",
    "algorithm.use_kl_in_reward": "anchor.placement=reward",
    "algorithm.adv_estimator": "advantage=<name>, such as advantage=group_norm for grpo",
    "algorithm.norm_adv_by_std_in_grpo": "advantage=group_mean",
    "algorithm.gamma": "advantage.gamma",
    "algorithm.lam": "advantage.lam",
    "algorithm.rollout_correction.rollout_is": "correction=[tis]",
    f"{ROLLOUT}.n": "rollout.num_generations",
    f"{ROLLOUT}.temperature": "rollout.temperature",
    f"{ROLLOUT}.name": "rollout=vllm or rollout=vllm_server",
    "reward_model.model.path": "reward.model.path, with reward=[model]",
    "custom_reward_function.path": "reward=[./mine.py:my_reward]",
    "custom_reward_function.name": "reward=[./mine.py:my_reward]",
    "trainer.total_training_steps": "train.steps",
    "trainer.total_epochs": "train.steps (steps, not passes over the prompts)",
    "trainer.test_freq": "eval.every",
    "trainer.save_freq": "checkpoint.every",
    "trainer.default_local_dir": "output_dir",
    "trainer.resume_mode": "resume",
    "trainer.logger": "tracker=[wandb]",
}
"""Of verl's PPO trainer."""

USUAL = {
    "lr": "train.learning_rate",
    "train.lr": "train.learning_rate",
    "batch_size": "train.prompts_per_step",
    "train.batch_size": "train.prompts_per_step",
    "train.epochs": "train.steps (steps, not passes over the prompts)",
    "train.num_epochs": "train.steps (steps, not passes over the prompts)",
    "train.beta": KL,
    "kl_coef": KL,
    "kl_coeff": KL,
    "kl_beta": KL,
}
"""What many call them."""

VLLM = {"rollout.max_tokens": "rollout.max_completion_length"}
"""Of vLLM's sampling settings, in the section where one would look for them."""

LAUNCHED = "`accelerate launch` says how many processes there are (docs/scaling.md)"
ABSENT = "there is no such setting here (docs/migrating.md)"
ELSEWHERE = {
    "min_p": ABSENT,
    "repetition_penalty": ABSENT,
    "use_liger_kernel": ABSENT,
    "logging_steps": "here every step is logged",
    "trainer.nnodes": f"here {LAUNCHED}",
    "trainer.n_gpus_per_node": f"here {LAUNCHED}",
    f"{ROLLOUT}.tensor_model_parallel_size": "here a vLLM server has it (docs/vllm.md)",
}
"""What no setting of a run stands for."""

SECTIONS = (
    *("actor_rollout_ref", "data", "trainer", "critic"),
    *("custom_reward_function", "reward_model"),
)
"""verl's sections, of which more keys exist than are listed."""


def in_our_words(key: str) -> str | None:
    """What to say of another library's setting; None if the key is not known as one."""
    if key in USUAL:
        return f"unknown key {key}; here it is {USUAL[key]}"
    for library, table in (("TRL", TRL), ("verl", VERL), ("vLLM", VLLM)):
        if key in table:
            return f"{key} is {library}'s; here it is {table[key]} (docs/migrating.md)"
    verls = key.partition(".")[0] in SECTIONS
    if key in ELSEWHERE:
        return f"{key} is {'verl' if verls else 'TRL'}'s; {ELSEWHERE[key]}"
    if verls:
        return f"{key} is verl's, and docs/migrating.md names no counterpart of it"
    return None

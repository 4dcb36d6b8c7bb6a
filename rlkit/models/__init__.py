"""The policy, the critic and LoRA adapters, and how a model is loaded."""

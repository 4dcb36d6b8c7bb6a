"""Training one policy with multiple processes."""

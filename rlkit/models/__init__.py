"""What learns: the policy, the critic, adapters, and how a model is loaded."""

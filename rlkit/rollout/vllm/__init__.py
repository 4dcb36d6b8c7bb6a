"""vLLM as a rollout engine, in this process or behind a server."""

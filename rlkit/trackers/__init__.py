"""Where metrics go besides metrics.jsonl. Each tracker imports its library when it starts."""

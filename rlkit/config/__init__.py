"""The run's own settings, numbers that follow a schedule, and what validation errors say."""

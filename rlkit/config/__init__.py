"""The run's own settings, scalar schedules, and the text of validation errors."""

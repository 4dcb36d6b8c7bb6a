"""Learned rewards: sequence classification models that score a prompt with its response."""

"""Rollouts as data: a run's responses on disk, to be read by other runs and other tools."""

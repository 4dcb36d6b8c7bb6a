"""Reincarnation schedules, one file each."""

"""Rewards: one file each, with TRL's signature."""

"""Replay buffers, one file each."""

"""Rollouts that other tools wrote: each file here reads one layout."""

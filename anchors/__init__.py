"""Anchors: the frozen policies a run is held to, one file each."""

"""Tasks: where problems come from. One file each."""

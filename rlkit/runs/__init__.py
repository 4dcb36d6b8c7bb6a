"""What a run leaves on disk, and what a resumed run finds there."""

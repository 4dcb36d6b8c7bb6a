"""One training step, top down."""

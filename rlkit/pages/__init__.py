"""Pages: what a run and a comparison look like in a browser."""

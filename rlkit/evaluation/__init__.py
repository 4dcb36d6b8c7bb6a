"""Evaluation: what a score on held-out problems is, and how sure it is."""

"""The two sides of the comparison with TRL: cases, models and data, a reward, TRL's process."""

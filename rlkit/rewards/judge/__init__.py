"""The judge: another model, behind an OpenAI-compatible endpoint, gives the score."""

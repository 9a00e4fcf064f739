"""GPT-2 and the models built on it, and how checkpoints are found, read and written."""

"""Runs that teach a language model short texts and let it write: sonnets, and tasks with task tokens."""

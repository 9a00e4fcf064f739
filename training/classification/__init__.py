"""Runs that classify: sentiment, paraphrase, and new texts by a finished run."""

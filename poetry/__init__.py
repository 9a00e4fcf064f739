"""Poems: their files, their sounds, and measures of how well they keep a form."""

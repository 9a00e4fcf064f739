"""What finished runs say side by side: statistics, tables, pictures, a report. Knows run folders, nothing of models."""

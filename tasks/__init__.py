"""What the tasks know of their texts: files, rules and measures, without any model."""

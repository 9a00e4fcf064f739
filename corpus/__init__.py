"""From dumps and texts to a corpus: extraction, selection, vocabulary and token shards."""

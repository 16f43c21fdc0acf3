"""One run on many machines at once, by an engine that starts its shards: the driver, and what runs elsewhere."""

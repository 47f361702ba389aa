"""A frozen vision transformer's patch features, in shards."""

"""A run in a format of others: written, read back, proven to answer as before."""

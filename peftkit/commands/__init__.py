"""Commands of `peftkit`, one a file: USAGE, and a function that reads its arguments and prints."""

"""What measurements say, and how surely: pure functions of arrays, which know no record."""

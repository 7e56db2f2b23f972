"""The facts of a run as typed data: one writer, one reader, no sentence, no formatting."""

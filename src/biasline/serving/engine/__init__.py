"""The engine: one base in memory, asked by many at once, each batch's rows with the delta that was asked for."""

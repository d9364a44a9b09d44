"""Many trainings: their cells, results, tables and pictures."""

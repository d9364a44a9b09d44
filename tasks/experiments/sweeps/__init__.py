"""Many trainings: cells, their results, tables and pictures."""

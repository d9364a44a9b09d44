"""Data sets: their splits and loaders, and what pictures and synthetic ones need."""

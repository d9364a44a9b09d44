"""Experiments as functions: what notebooks call as `lincon.experiments`, and the command line too."""

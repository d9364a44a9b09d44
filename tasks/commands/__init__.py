"""The command line: one file for each kind of command, and `cli` that puts them together."""

"""The command line: a thin layer on the experiments and the tasks."""

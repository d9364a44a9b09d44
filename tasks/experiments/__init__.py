"""What all tasks share: one training, sweeps of them kept as they finish, and the tables made of them.

A task (`task.Task`) says what its data, models, schemes and measures are; Lightning trains.
"""

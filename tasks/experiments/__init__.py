"""What all tasks share: one training, sweeps of many, and the tables made of them.

A task (`task.Task`) names its data, models, schemes and measures; Lightning trains.
"""

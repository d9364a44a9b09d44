"""What the processes of `ranks.py` find imported: the command line with all that a training takes."""

import lincon.tasks.classification.task
import lincon.tasks.commands.cli
import lincon.tasks.experiments.sweeps.sweep
import lincon.tasks.indoor.task
import lincon.tasks.pose.task  # noqa: F401

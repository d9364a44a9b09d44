"""What the processes of `ranks.py` find imported: the command line with all that a training takes."""

import lincon.cli
import lincon.tasks.classification.task
import lincon.tasks.experiments.sweep
import lincon.tasks.indoor.task
import lincon.tasks.pose.task  # noqa: F401

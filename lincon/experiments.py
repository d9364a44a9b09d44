"""Experiments on data, for Python: `lincon.tasks.interface.experiments`. Needs the extra `[tasks]`.

result = lincon.experiments.compare(make_model, (x, y), schemes=["vanilla", "ring"], dof=0.1)
result                       # a notebook shows the table
pandas.DataFrame(result.rows)
result.plot()
"""

from lincon.tasks.interface.experiments import Auto as Auto
from lincon.tasks.interface.experiments import Grid as Grid
from lincon.tasks.interface.experiments import Result as Result
from lincon.tasks.interface.experiments import Settings as Settings
from lincon.tasks.interface.experiments import compare as compare
from lincon.tasks.interface.experiments import convergence as convergence
from lincon.tasks.interface.experiments import generalization as generalization
from lincon.tasks.interface.experiments import scaling as scaling

__all__ = [
    "Auto",
    "Grid",
    "Result",
    "Settings",
    "compare",
    "convergence",
    "generalization",
    "scaling",
]

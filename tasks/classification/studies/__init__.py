"""Studies beyond one table: scaling laws, convergence, generalisation."""

"""Random projections: columns have unit norm, exactly or in expectation, and rows are alike."""

from lincon.generator import Generator


class Projection(Generator):
    """Base of `dense`, `sparse`, `fastfood` and `kronecker`.

    The squared norms of dof columns add up to dof, so a row has dof / rows of it in expectation.
    """

    def energy(self, start: int, stop: int) -> float:
        return self.dof / self.rows

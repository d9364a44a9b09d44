"""Laws of accuracy against degrees of freedom (DoF): least squares with bootstrap intervals.

The power law of the error is that of Recurrent Parameter Generators, Wang et al. 2023. The
saturating law adds an error that remains at any number of DoF. Laws are compared by Akaike's
criterion and never used for extrapolation.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import lstsq
from scipy.optimize import least_squares
from scipy.stats import norm
from scipy.stats import t as student

from lincon import LinconError
from lincon.shapes import Float, Num
from lincon.tasks.experiments.names import choose

_SIDES = (0.025, 0.975)
# Bounds the saturating law's k, which is undetermined if one step of DoF reaches the floor.
_STEEPEST = 8.0
_STARTS = (0.1, 0.9)  # of e_inf, as shares of the smallest error


@dataclass(frozen=True)
class Law:
    """A family of curves.

    formula: in words.
    names: of the parameters.
    distinct: number of distinct DoF that a fit needs.
    logarithmic: whether the response, whose squares are minimised, is the logarithm of the error;
        otherwise it is the accuracy.
    value: parameters (p, ...) and DoF (n,) -> responses (..., n).
    solve: DoF (n,) and responses (b, n) -> fitted parameters (b, p).
    """

    formula: str
    names: tuple[str, ...]
    distinct: int
    logarithmic: bool
    value: Callable[[np.ndarray, np.ndarray], np.ndarray]
    solve: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def accuracy(
        self, parameters: Float[np.ndarray, "*fits p"], dof: Num[np.ndarray, " n"]
    ) -> Float[np.ndarray, "*fits n"]:
        """Accuracies, fractions, at some DoF."""
        value = self.value(np.moveaxis(parameters, -1, 0)[..., None], dof)
        return 1 - np.exp(value) if self.logarithmic else value


@dataclass(frozen=True)
class Fit:
    """A fitted law.

    intervals: 95 % bootstrap intervals of the `parameters`.
    residual: root mean square of the accuracy residuals, a fraction.
    aic: compares laws fitted to the same points; smaller is better.
    low, high: the fitted range of DoF.
    samples: the bootstrap fits, (bootstrap, parameters).
    """

    law: str
    parameters: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    residual: float
    aic: float
    low: float
    high: float
    samples: np.ndarray = field(repr=False, compare=False)

    def predict(self, dof: float) -> tuple[float, float, float]:
        """The law's accuracy at ``dof`` with its 95 % bootstrap interval: (accuracy, low, high).

        All are fractions. The interval is that of the curve, not of one more run. A log-linear law
        has no bounds, so its accuracy may leave [0, 1]. Raises LinconError outside the fitted
        range.
        """
        accuracy, low, high = self.curve(np.array([dof], dtype=float))[:, 0].tolist()
        return accuracy, low, high

    def curve(self, dof: Num[np.ndarray, " n"]) -> Float[np.ndarray, "3 n"]:
        """`predict` at every DoF: rows of accuracy, low and high."""
        outside = dof[~((self.low <= dof) & (dof <= self.high))]
        if outside.size:
            raise LinconError(
                f"The law was fitted from {self.low:,.0f} to {self.high:,.0f} DoF; "
                f"{outside[0]:,.0f} is outside, and extrapolation is refused."
            )
        law = LAWS[self.law]
        best = law.accuracy(np.array(list(self.parameters.values())), dof)
        return np.vstack([best, np.quantile(law.accuracy(self.samples, dof), _SIDES, axis=0)])


@dataclass(frozen=True)
class Difference:
    """A difference of two exponents with its 95 % interval; `equal`: whether zero is inside."""

    difference: float
    low: float
    high: float
    equal: bool


def fit(
    law: str,
    dof: np.ndarray,
    accuracy: np.ndarray,
    images: int | None,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Fit:
    """Fit a law to the accuracies of some runs.

    Laws of the error are fitted to its logarithm; errors count as at least half an image.

    The bootstrap keeps the DoF and draws new responses. If a DoF has m >= 2 runs, their responses
    are drawn from these runs: the mean plus deviations from it times √(m / (m - 1)), which makes
    the variance unbiased. A DoF with one run draws the fitted response plus one of all n residuals,
    times √(n / (n - p)) for p parameters. Both are widened from the normal to Student's t, as runs
    are few. Intervals cover the spread over runs, not the choice of test images, and assume that
    the law is true. On synthetic laws with six DoF and one to three runs they held the truth 90 to
    94 times in 100.

    Args:
        law: a name in `LAWS`.
        dof, accuracy: (n,), of n runs; accuracies are fractions.
        images: number of test images; None for a loss, such as the cross-entropy, whose ``accuracy``
            is 1 minus the loss, and may be below 0.
        bootstrap: number of samples.
        seed: of the samples.

    Raises:
        LinconError: an unknown law, too few distinct DoF (3; 4 for the saturating law), accuracies
            outside [0, 1], or DoF that are not positive and finite.

    >>> dof = np.array([100.0, 400.0, 1600.0, 6400.0])
    >>> fitted = fit("power", dof, 1 - 2 * dof**-0.5, images=10_000)
    >>> {name: round(value, 3) for name, value in fitted.parameters.items()}
    {'c': 2.0, 'k': 0.5}
    """
    chosen = choose("law", law, LAWS)
    dof, accuracy = _checked(chosen, dof, accuracy, images)
    if bootstrap < 1:
        raise LinconError(f"A bootstrap needs at least one sample; got {bootstrap}.")
    response = _response(chosen, accuracy, images)
    parameters = _solved(chosen, dof, response[None])[0]
    fitted = chosen.value(parameters[:, None], dof)
    random = np.random.default_rng(seed)
    responses = _bootstrap(dof, response, fitted, len(parameters), bootstrap, random)
    samples = _solved(chosen, dof, responses)
    return Fit(
        law=law,
        parameters=dict(zip(chosen.names, parameters.tolist(), strict=True)),
        intervals=dict(zip(chosen.names, map(_interval, samples.T), strict=True)),
        residual=float(np.sqrt(np.mean((accuracy - chosen.accuracy(parameters, dof)) ** 2))),
        aic=_aic(chosen, response, fitted, images),
        low=float(dof.min()),
        high=float(dof.max()),
        samples=samples,
    )


def best(fits: Iterable[Fit]) -> Fit:
    """The fit with the smallest AIC; the fits must be of the same points."""
    return min(fits, key=lambda each: each.aic)


def compare_exponents(a: Fit, b: Fit) -> Difference:
    """The exponent k of ``a`` minus that of ``b``: two fits of the same law, to independent runs.

    The interval is that of all differences between bootstrap samples of the two. Raises LinconError
    unless both are fits of the same law with a k.
    """
    if a.law != b.law or "k" not in a.parameters:
        raise LinconError(
            f"Exponents are compared between two power laws, not between {a.law!r} and {b.law!r}."
        )
    k = LAWS[a.law].names.index("k")
    low, high = _interval(np.subtract.outer(a.samples[:, k], b.samples[:, k]))
    return Difference(a.parameters["k"] - b.parameters["k"], low, high, low <= 0 <= high)


def held_out(
    law: str, dof: np.ndarray, accuracy: np.ndarray, images: int | None
) -> list[tuple[float, float, float]]:
    """Leave out each DoF in turn but the smallest and the largest, and predict it from the rest.

    The result has (DoF, predicted accuracy, mean observed accuracy) of each. Raises LinconError as
    `fit` does, also if the rest is too little to fit.
    """
    chosen = choose("law", law, LAWS)
    dof, accuracy = _checked(chosen, dof, accuracy, images)
    rows = []
    for left_out in np.unique(dof)[1:-1]:
        is_rest = dof != left_out
        rest, rest_accuracy = _checked(chosen, dof[is_rest], accuracy[is_rest], images)
        parameters = _solved(chosen, rest, _response(chosen, rest_accuracy, images)[None])[0]
        predicted = chosen.accuracy(parameters, np.array([left_out]))[0]
        observed = accuracy[~is_rest].mean()
        rows.append((float(left_out), float(predicted), float(observed)))
    return rows


def as_json(fit: Fit) -> dict[str, object]:
    """The fit as plain JSON, without the bootstrap samples."""
    return {
        "law": fit.law,
        "formula": LAWS[fit.law].formula,
        "parameters": dict(fit.parameters),
        "intervals": {name: list(interval) for name, interval in fit.intervals.items()},
        "residual": fit.residual,
        "aic": fit.aic,
        "low": fit.low,
        "high": fit.high,
    }


def _checked(
    law: Law, dof: np.ndarray, accuracy: np.ndarray, images: int | None
) -> tuple[np.ndarray, np.ndarray]:
    dof, accuracy = np.asarray(dof, dtype=float), np.asarray(accuracy, dtype=float)
    if dof.ndim != 1 or dof.shape != accuracy.shape:
        raise LinconError(
            f"A DoF and an accuracy a point are needed; got shapes {dof.shape} and "
            f"{accuracy.shape}."
        )
    if not np.all(np.isfinite(dof) & (dof > 0)):
        raise LinconError("Degrees of freedom must be positive numbers.")
    if images is None and not np.all(np.isfinite(accuracy) & (accuracy < 1)):
        raise LinconError("Losses must be positive and finite.")
    if images is not None and not np.all((accuracy >= 0) & (accuracy <= 1)):
        raise LinconError("Accuracies must be fractions in [0, 1].")
    if images is not None and images < 1:
        raise LinconError(f"Accuracies are of at least one test image; got {images}.")
    if (distinct := len(np.unique(dof))) < law.distinct:
        raise LinconError(
            f"{law.formula} needs at least {law.distinct} distinct DoF; got {distinct}."
        )
    return dof, accuracy


def _response(law: Law, accuracy: np.ndarray, images: int | None) -> np.ndarray:
    least = 0.5 / images if images else 0.0
    return np.log(np.maximum(1 - accuracy, least)) if law.logarithmic else accuracy


def _solved(law: Law, dof: np.ndarray, responses: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        parameters = law.solve(dof, responses)
    if not np.all(np.isfinite(parameters)):
        raise LinconError("The DoF are too close together to fit a law.")
    return parameters


def _bootstrap(
    dof: np.ndarray,
    response: np.ndarray,
    fitted: np.ndarray,
    parameters: int,
    count: int,
    random: np.random.Generator,
) -> np.ndarray:
    """Bootstrap responses, (count, n)."""
    distinct = np.unique(dof)
    widening = _student(max(len(dof) - len(distinct), len(distinct) - parameters))
    residuals = (response - fitted) * np.sqrt(len(dof) / (len(dof) - parameters))
    samples = np.empty((count, len(dof)))
    for each in distinct:
        same_dof = dof == each
        runs = int(same_dof.sum())
        if runs > 1:
            centre = response[same_dof].mean()
            pool = (response[same_dof] - centre) * np.sqrt(runs / (runs - 1))
        else:
            centre, pool = fitted[same_dof], residuals
        samples[:, same_dof] = centre + widening * random.choice(pool, (count, runs))
    return samples


def _student(freedom: int) -> float:
    """How much wider than the normal's a 95 % interval of Student's t is."""
    return float(student.ppf(_SIDES[1], freedom) / norm.ppf(_SIDES[1]))


def _aic(law: Law, response: np.ndarray, fitted: np.ndarray, images: int | None) -> float:
    """Akaike's criterion for Gaussian residuals, always as a density of the accuracy."""
    variance = np.mean((response - fitted) ** 2)
    if law.logarithmic:
        # The Jacobian of the logarithm is the geometric mean of the errors.
        variance *= np.exp(2 * response.mean())
    # Accuracies are counts of images, so no law is known better than by their rounding. Losses are
    # rounded to float32.
    rounding = 1 / (12 * images**2) if images else float(np.finfo(np.float32).eps) ** 2
    return float(len(response) * np.log(max(variance, rounding)) + 2 * len(law.names))


def _interval(samples: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(samples, _SIDES).tolist()
    return low, high


def _line(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (b,) and slopes (b,) of y (b, n) over x (n,)."""
    offset, slope = lstsq(np.column_stack([np.ones_like(x), x]), y.T)[0]
    return offset, slope


def _solve_log_linear(dof: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    return np.column_stack(_line(np.log(dof), accuracy))


def _solve_power(dof: np.ndarray, log_error: np.ndarray) -> np.ndarray:
    offset, slope = _line(np.log(dof), log_error)
    return np.column_stack([np.exp(offset), -slope])


def _solve_saturating(dof: np.ndarray, log_error: np.ndarray) -> np.ndarray:
    return np.array([_saturate(np.log(dof), each) for each in log_error])


def _saturate(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Fit y = ln(e_inf + c exp(-k x)) with 0 <= k <= 8; the better of two starts."""
    middle, smallest = x.mean(), np.exp(y.min())
    x = x - middle  # decorrelates the scale from the exponent

    def terms(at: np.ndarray) -> tuple[float, np.ndarray]:
        share, scale, k = at
        return smallest * share, np.exp(scale - k * x)

    def residual(at: np.ndarray) -> np.ndarray:
        residuals: np.ndarray = np.log(np.add(*terms(at))) - y
        return residuals

    def slopes(at: np.ndarray) -> np.ndarray:
        floor, falling = terms(at)
        columns = np.column_stack([np.full_like(x, smallest), falling, -x * falling])
        ratios: np.ndarray = columns / (floor + falling)[:, None]
        return ratios

    def start(share: float) -> list[float]:
        scale, slope = _line(x, np.log(np.exp(y) - share * smallest)[None])
        return [share, scale[0], np.clip(-slope[0], 0, _STEEPEST)]

    bounds = ([0, -np.inf, 0], [1, np.inf, _STEEPEST])
    tried = [least_squares(residual, start(share), slopes, bounds=bounds) for share in _STARTS]
    share, scale, k = min(tried, key=lambda result: result.cost).x
    return np.array([smallest * share, np.exp(scale + k * middle), k])


def _log_linear(parameters: np.ndarray, dof: np.ndarray) -> np.ndarray:
    a, b = parameters
    accuracy: np.ndarray = a + b * np.log(dof)
    return accuracy


def _power(parameters: np.ndarray, dof: np.ndarray) -> np.ndarray:
    c, k = parameters
    log_error: np.ndarray = np.log(c) - k * np.log(dof)
    return log_error


def _saturating(parameters: np.ndarray, dof: np.ndarray) -> np.ndarray:
    floor, c, k = parameters
    log_error: np.ndarray = np.log(floor + np.exp(np.log(c) - k * np.log(dof)))
    return log_error


LAWS: dict[str, Law] = {
    "log-linear": Law(
        "accuracy = a + b ln(dof)", ("a", "b"), 3, False, _log_linear, _solve_log_linear
    ),
    "power": Law("error = c dof^-k", ("c", "k"), 3, True, _power, _solve_power),
    "saturating": Law(
        "error = e_inf + c dof^-k", ("e_inf", "c", "k"), 4, True, _saturating, _solve_saturating
    ),
}

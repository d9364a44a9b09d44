"""Scopes: which tensors share a free vector, and how many degrees of freedom each vector gets."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from lincon.attaching.dof import Dof, apportion, as_count
from lincon.attaching.targets import Target
from lincon.errors import DofError, TargetError

Scope = str | Iterable[str] | Mapping[str, int | float] | Callable[[str], str]
"""`"model"`, `"tensor"`, name prefixes, a mapping prefix -> dof, or a function name -> label."""


@dataclass(frozen=True)
class Share:
    """Tensors that will share a free vector of ``dof`` numbers.

    The label is "" for the whole model. ``dof`` is None if the generator determines it.
    """

    label: str
    targets: list[Target]
    dof: int | None

    @property
    def rows(self) -> int:
        """The number of weights that will be generated."""
        return sum(target.tensor.numel() for target in self.targets)

    @property
    def shapes(self) -> list[list[int]]:
        """The shapes of the tensors in the order of their rows, as plain JSON."""
        return [list(target.tensor.shape) for target in self.targets]


def shares(chosen: list[Target], scope: Scope, dof: Dof) -> list[Share]:
    """Divide the chosen tensors by ``scope``. Shares are in the order of their first tensors.

    Raises:
        TargetError: the scope is unknown, names no tensor, or leaves one out.
        DofError: the budget is impossible.
    """
    if isinstance(scope, Mapping) and dof is not None:
        raise DofError(
            "dof= and a scope that maps prefixes to dof exclude each other; leave dof out."
        )
    if not isinstance(scope, str | Mapping) and not callable(scope):
        scope = list(scope)  # an iterator could be read only once
    labels = {target.name: _label(scope, target.name) for target in chosen}
    _check_all_used(scope, set(labels.values()))
    members: dict[str, list[Target]] = {}
    for target in chosen:
        members.setdefault(labels[target.name], []).append(target)
    rows = {label: sum(t.tensor.numel() for t in of) for label, of in members.items()}
    budgets = _budgets(scope, dof, rows)
    return [Share(label, of, budgets[label]) for label, of in members.items()]


def _check_all_used(scope: Scope, labels: set[str]) -> None:
    if isinstance(scope, str) or callable(scope):
        return
    if idle := set(scope) - labels:
        raise TargetError(
            f"scope names {sorted(idle)}, but no tensor to constrain is under these prefixes."
        )


def _label(scope: Scope, name: str) -> str:
    if isinstance(scope, str):
        if scope not in ("model", "tensor"):
            raise TargetError(
                f"scope={scope!r}; give 'model', 'tensor', a list of name prefixes, "
                "a mapping prefix -> dof, or a function name -> group."
            )
        return "" if scope == "model" else name
    if callable(scope):
        return str(scope(name))
    matching = [prefix for prefix in scope if name == prefix or name.startswith(prefix + ".")]
    if not matching:
        raise TargetError(
            f"{name!r} is under none of the scopes {list(scope)}; "
            "add a prefix, or choose tensors by where=..."
        )
    return max(matching, key=len)


def _budgets(scope: Scope, dof: Dof, rows: dict[str, int]) -> Mapping[str, int | None]:
    """Degrees of freedom by label; None if the generator determines them."""
    if isinstance(scope, Mapping):
        return {label: as_count(scope[label], size) for label, size in rows.items()}
    if dof is None:
        return dict.fromkeys(rows)
    if isinstance(dof, float) or len(rows) == 1:
        return {label: as_count(dof, size) for label, size in rows.items()}
    return apportion(as_count(dof, sum(rows.values())), rows)

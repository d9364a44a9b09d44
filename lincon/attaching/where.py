"""Choosing the tensors to constrain by `where=`. Nothing here changes a model.

There is a default choice: trainable weights of two or more dimensions that are neither constant nor
parametrized. Modules, patterns, types and predicates filter it. Only a name that is written out
whole overrides it: "enc.*" never means the norms and biases of an encoder.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Any

from torch import nn

from lincon.attaching.targets import (
    NOT_REAL,
    PARAMETRIZED,
    Target,
    check_target,
    generated_names,
    is_constant,
    reason_against,
    targets,
)
from lincon.errors import TargetError
from lincon.processes.shards import check_unsharded

Item = str | type[nn.Module]
Predicate = Callable[[str, nn.Parameter], bool]
Where = Item | Iterable[Item] | Predicate | None
"""Names, glob patterns and types of modules, or a predicate; None for the default choice."""

_FINAL = NOT_REAL, PARAMETRIZED
"""Reasons that a name which is written out does not override."""

_FORMS = (
    "give names ('enc.0.weight'), modules ('enc'), patterns ('enc.*.weight'), types of modules "
    "(nn.Linear), a list of these, or a function (name, parameter) -> bool."
)


@dataclass(frozen=True)
class Choice:
    """What ``where`` chose.

    Attributes:
        targets: the tensors to constrain, in the order of the model.
        written: those of them whose name was written out whole.
        reasons: by the name of each tensor that ``where`` matches, why it is left out, or "".
    """

    targets: list[Target]
    written: list[Target]
    reasons: dict[str, str]

    @property
    def constant(self) -> list[str]:
        """Names of constant tensors that are constrained, because their names were written out."""
        return [target.name for target in self.written if is_constant(target.tensor)]

    def left_out(self, reason: str) -> list[str]:
        """Names of matching tensors that were left out for a reason."""
        return [name for name, why in self.reasons.items() if why == reason]


def choose(model: nn.Module, where: Where) -> Choice:
    """The tensors that ``where`` chooses.

    Raises:
        TargetError: nothing was chosen, by ``where`` or by one of its items, a chosen tensor cannot
            be constrained, or ``where`` is of another type.
    """
    check_unsharded(model)
    everything = targets(model)
    items = _items(model, where)
    by_name = {name: target for target in everything for name in target.names}
    written: list[Target] = []
    reasons: dict[str, str] = {}
    for item in items:
        if isinstance(item, str) and item in by_name:
            written.append(by_name[item])
        else:
            reasons |= _judged(model, everything, item)
    reasons |= {target.name: "" for target in written}
    chosen = [target for target in everything if reasons.get(target.name) == ""]
    if not chosen:
        raise TargetError(f"There is nothing to constrain: where={where!r} is empty.")
    for target in chosen:
        check_target(target)
    return Choice(chosen, written, reasons)


def _judged(model: nn.Module, everything: list[Target], item: Any) -> dict[str, str]:
    """Why the default leaves out each tensor that an item matches, by name; "" if it does not.

    Raises:
        TargetError: it leaves out all of them.
    """
    matches = _predicate(model, item)
    matching = [t for t in everything if any(matches(name, t.tensor) for name in t.names)]
    reasons = {target.name: reason_against(target) for target in matching}
    if "" in reasons.values():
        return reasons
    _check_untaken(model, item)
    asked = "the default" if item is None else f"where={_said(item)}"
    if not reasons:
        names = _listed([target.name for target in everything], 8) or "none"
        raise TargetError(
            f"There is nothing to constrain: {asked} matches no parameter; there are: {names}."
        )
    why = _listed([f"{name!r} is {reason}" for name, reason in reasons.items()], 4)
    raise TargetError(
        f"There is nothing to constrain: {asked} chooses trainable weights of two or more "
        f"dimensions, but {why}. {_remedy(reasons)}"
    )


def _listed(texts: list[str], most: int) -> str:
    more = [f"... {len(texts)} in all"] if len(texts) > most else []
    return ", ".join([*texts[:most], *more])


def _check_untaken(model: nn.Module, item: Any) -> None:
    """Raise TargetError if an item matches tensors that are generated already."""
    generated = sorted(generated_names(model))
    if isinstance(item, str):
        generated = [name for name in generated if _matches(name, item)]
    if generated and (item is None or isinstance(item, str)):
        more = f", and {len(generated) - 1} more are" if generated[1:] else ""
        raise TargetError(
            f"{generated[0]!r} is constrained already{more}; lincon.merge(model) undoes that."
        )


def _remedy(reasons: dict[str, str]) -> str:
    possible = [name for name, reason in reasons.items() if reason not in _FINAL]
    if possible:
        return f"A name that is written out whole, where={possible[0]!r}, overrides that."
    return "Undo that first (torch.nn.utils.parametrize.remove_parametrizations)."


def _said(item: Any) -> str:
    return repr(item) if isinstance(item, str) else str(getattr(item, "__qualname__", item))


def _items(model: nn.Module, where: Any) -> list[Any]:
    """The items of ``where``, each a string, a type of modules, a predicate, or None."""
    if where is None or _is_item(where):
        return [where]
    if isinstance(where, nn.Module | nn.Parameter):
        raise TargetError(f"where= takes names, not what they name: {_name(model, where)}")
    if isinstance(where, type) or not isinstance(where, Iterable | Callable):
        raise TargetError(f"where={where!r} is none of its forms; {_FORMS}")
    if not isinstance(where, Iterable):
        return [where]
    items = list(where)
    for item in items:
        if not _is_item(item):
            how = _name(model, item)
            raise TargetError(f"where= holds a {type(item).__name__}; {how}")
    return items


def _is_item(item: Any) -> bool:
    return isinstance(item, str) or (isinstance(item, type) and issubclass(item, nn.Module))


def _name(model: nn.Module, item: Any) -> str:
    """What to give in the place of a module, a parameter, or something else."""
    members: list[tuple[str, Any]] = [*model.named_modules(), *model.named_parameters()]
    own = next((name for name, member in members if member is item), "")
    return f"give where={own!r}." if own else _FORMS


def _predicate(model: nn.Module, item: Any) -> Predicate:
    """An item as a predicate. A module stands for all tensors inside of it."""
    if item is None:
        return lambda name, tensor: True
    if isinstance(item, str):
        return lambda name, tensor: _matches(name, item)
    if not isinstance(item, type):
        predicate: Predicate = item
        return predicate
    modules = model.named_modules(remove_duplicate=False)
    inside = {path for path, module in modules if isinstance(module, item)}
    return lambda name, tensor: not inside.isdisjoint(_paths(name))


def _matches(name: str, pattern: str) -> bool:
    """Whether a pattern matches a name, or the path of a module that it is in."""
    return any(path and fnmatchcase(path, pattern) for path in [name, *_paths(name)])


def _paths(name: str) -> Iterator[str]:
    """The paths of the modules that a name is in, from the outermost, "", to its own.

    >>> list(_paths("enc.0.weight"))
    ['', 'enc', 'enc.0']
    """
    yield ""
    yield from accumulate(name.split(".")[:-1], "{}.{}".format)

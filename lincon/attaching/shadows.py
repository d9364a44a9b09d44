"""Methods of a model that look for Parameters, in the place of those of other libraries.

A shadow is an attribute of the one model that is constrained; its class stays as it is.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from lincon.attaching.ledger import Ledger


class Shadow:
    """A method of one model, which calls that of its class."""

    name: str
    """The method's name."""

    def __init__(self, constraint: "Shadowed") -> None:
        self.constraint = constraint

    @property
    def model(self) -> nn.Module:
        """The model that is constrained."""
        return self.constraint.owner

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method of the model's class."""
        return getattr(type(self.model), self.name)(self.model, *args, **kwargs)


class Shadowed(Protocol):
    """What is asked of a constraint."""

    owner: nn.Module

    @property
    def ledger(self) -> Ledger:
        """All tensors."""

    def weights(self) -> Mapping[str, Tensor]:
        """All generated tensors by first name."""


class TieWeights(Shadow):
    """`tie_weights` of a Hugging Face model.

    Generated tensors that were tied are one entry of the ledger, so they are tied already.
    """

    name = "tie_weights"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Tie what is not generated."""
        try:
            return super().__call__(*args, **kwargs)
        except AttributeError as error:
            if "arameter" not in str(error):  # it looked for one that is generated
                raise


class SavePretrained(Shadow):
    """`save_pretrained` of a peft model.

    It writes what a state_dict holds under the names of the adapter. Generated weights are not in it,
    and without them the file would be empty.
    """

    name = "save_pretrained"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Write an adapter that needs no lincon: its weights as they are now."""
        given = kwargs.pop("state_dict", None)
        state = dict(self.model.state_dict() if given is None else given)
        weights = self.constraint.weights()
        for entry in self.constraint.ledger:
            for name in entry.names:
                state.setdefault(name, weights[entry.name].detach())
        return super().__call__(*args, state_dict=state, **kwargs)


def put_shadows(constraint: Shadowed) -> None:
    """Put the shadows of all methods that the model has, unless an attribute is there already."""
    model = constraint.owner
    kinds: list[type[Shadow]] = [TieWeights]
    if hasattr(model, "peft_config"):
        kinds.append(SavePretrained)
    for kind in kinds:
        if callable(getattr(type(model), kind.name, None)) and kind.name not in vars(model):
            vars(model)[kind.name] = kind(constraint)


def remove_shadows(constraint: Shadowed) -> None:
    """Give the model the methods of its class again."""
    own = vars(constraint.owner)
    for name in [name for name, value in own.items() if isinstance(value, Shadow)]:
        if own[name].constraint is constraint:
            del own[name]

"""Methods of a model that look for Parameters, in the place of those of other libraries.

A shadow is an attribute of the one model that is constrained; its class stays as it is.
"""

import sys
import warnings
from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from lincon.attaching.ledger import Ledger
from lincon.errors import LinconWarning


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
    if _writes_adapters(model):
        kinds.append(SavePretrained)
    elif adapters := _in_adapters(constraint):
        warnings.warn(
            f"{adapters[0]!r} belongs to an adapter of peft, whose save_pretrained will not find "
            "it: constrain the PeftModel itself, with the same where=..., and it will.",
            LinconWarning,
            stacklevel=4,
        )
    for kind in kinds:
        if callable(getattr(type(model), kind.name, None)) and kind.name not in vars(model):
            vars(model)[kind.name] = kind(constraint)


def _writes_adapters(model: nn.Module) -> bool:
    """Whether it is a model of peft, or one of transformers that has added an adapter."""
    peft = sys.modules.get("peft")
    is_of_peft = peft is not None and isinstance(model, peft.PeftModel)
    return is_of_peft or bool(getattr(model, "_hf_peft_config_loaded", False))


def _in_adapters(constraint: Shadowed) -> list[str]:
    """The names of generated tensors that are in adapter layers of peft, if that is in use."""
    peft = sys.modules.get("peft.tuners.tuners_utils")
    if peft is None:
        return []
    modules = constraint.owner.named_modules()
    layers = tuple(f"{name}." for name, each in modules if isinstance(each, peft.BaseTunerLayer))
    names = [name for entry in constraint.ledger for name in entry.names]
    return [name for name in names if name.startswith(layers) and ".base_layer." not in name]


def remove_shadows(constraint: Shadowed) -> None:
    """Give the model the methods of its class again."""
    own = vars(constraint.owner)
    for name in [name for name, value in own.items() if isinstance(value, Shadow)]:
        if own[name].constraint is constraint:
            del own[name]

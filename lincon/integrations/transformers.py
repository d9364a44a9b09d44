"""Hugging Face transformers: `from_pretrained` and `save_pretrained` of constrained models.

The configuration holds `lincon.spec(model)` under the key `lincon`, and a model whose class has
the mixin is constrained like that as soon as it is built, on the meta device too.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.overrides import TorchFunctionMode

from lincon.attaching.binding import merge as merged
from lincon.attaching.constraint import constraints
from lincon.attaching.spec import constrain_like, spec
from lincon.errors import TargetError
from lincon.step.weight import Weight

if TYPE_CHECKING:
    from transformers import PreTrainedModel
else:
    PreTrainedModel = Any

KEY = "lincon"
"""The name of the spec in a configuration."""


class ConstrainedMixin:
    """A model that is constrained as its configuration says, if that says so.

    Give it as the first base class: ``class Net(ConstrainedMixin, BertModel): pass``. Its
    `save_pretrained`, which the Trainer calls too, writes the present constraints into the
    configuration; `Net.from_pretrained(folder)` then needs no word.
    """

    config: Any

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        parent: Any = super()
        parent.__init__(config, *args, **kwargs)
        described = getattr(config, KEY, None)
        if described is not None:
            model = cast(PreTrainedModel, self)
            ties = model.get_expanded_tied_weights_keys(all_submodels=True)
            for target, source in ties.items():  # transformers does so later; the ledger has ties
                path, _, attribute = target.rpartition(".")
                setattr(model.get_submodule(path), attribute, model.get_parameter(source))
            constrain_like(model, described)
            # Generated tensors stay tied. Others are tied again after they have been loaded.
            own = {name for name, _ in model.named_parameters(remove_duplicate=False)}
            model.all_tied_weights_keys = {t: s for t, s in ties.items() if {t, s} <= own}

    def save_pretrained(self, folder: Any, *args: Any, **kwargs: Any) -> Any:
        """`save_pretrained` of transformers, with the spec in the configuration."""
        describe(cast(PreTrainedModel, self))
        parent: Any = super()
        return parent.save_pretrained(folder, *args, **kwargs)

    def _initialize_missing_keys(self, *args: Any, **kwargs: Any) -> None:
        """Initialise what a checkpoint lacks, which `from_pretrained` asks for after loading."""
        parent: Any = super()
        with _GeneratedStay():
            parent._initialize_missing_keys(*args, **kwargs)


class _GeneratedStay(TorchFunctionMode):
    """Functions that write to a generated weight leave it as it is: transformers initialises all."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        first = args[0] if args else kwargs.get("tensor")
        name = func.__name__
        if isinstance(first, Weight) and name.endswith("_") and not name.endswith("__"):
            return first
        return func(*args, **kwargs)


def describe(model: PreTrainedModel) -> None:
    """Write the present constraints of a model into its configuration, or that it has none."""
    if constraints(model):
        setattr(model.config, KEY, spec(model))
    elif hasattr(model.config, KEY):
        delattr(model.config, KEY)


def save_pretrained(model: PreTrainedModel, folder: str | Path, **options: Any) -> Any:
    """`model.save_pretrained(folder, **options)` for a model that is constrained, or merged.

    Args:
        model: of any class of transformers.
        folder: as transformers takes it.
        options: of its `save_pretrained`.

    Raises:
        LinconError: G is no value (see `lincon.spec`).

    Example::

        model = BertModel.from_pretrained("bert-base-uncased")
        lincon.constrain(model, "ring", dof=0.1, offset=True)
        save_pretrained(model, folder)
        same = from_pretrained(BertModel, folder)
        plain = from_pretrained(BertModel, folder, merge=True)
    """
    describe(model)
    return model.save_pretrained(folder, **options)


def from_pretrained(
    cls: Any, folder: str | Path, *args: Any, merge: bool = False, **options: Any
) -> Any:
    """`cls.from_pretrained(folder, ...)` of a model that was saved constrained.

    A model that was not is loaded as ever.

    Args:
        cls: a model class of transformers, or an Auto class.
        folder: a folder or a name on the hub, as transformers takes it.
        args: of its `from_pretrained`.
        merge: whether to merge the model: plain Parameters under plain keys.
        options: of its `from_pretrained`.

    Returns:
        The model, of the class that the Auto class chooses, or of ``cls``.

    Raises:
        TargetError: the spec does not fit the class.
        FileError: the tensors belong to another G than the configuration says.
    """
    cls = _model_class(cls, folder, options)
    loading = cls
    if not issubclass(cls, ConstrainedMixin):
        loading = type(cls.__name__, (ConstrainedMixin, cls), {"__module__": cls.__module__})
    model = loading.from_pretrained(folder, *args, **options)
    if isinstance(model, tuple):  # output_loading_info=True
        return (_finished(model[0], loading, cls, merge), *model[1:])
    return _finished(model, loading, cls, merge)


def _finished(model: PreTrainedModel, loading: type, cls: type, merge: bool) -> PreTrainedModel:
    """The model, of its own class, with the multipliers that transformers has left in it."""
    for constraint in constraints(model):
        constraint.state.receive()
    if merge and constraints(model):
        merged(model)
        describe(model)
    if type(model) is loading:
        model.__class__ = cls
    return model


def _model_class(cls: Any, folder: str | Path, options: dict[str, Any]) -> Any:
    """The model class that an Auto class chooses, or the class itself."""
    from transformers import AutoConfig, PreTrainedModel

    if isinstance(cls, type) and issubclass(cls, PreTrainedModel):
        return cls
    if not hasattr(cls, "from_config"):
        raise TargetError(
            f"{getattr(cls, '__name__', cls)!r} is no model class of transformers, and no Auto "
            "class. It comes first, as in from_pretrained(BertModel, folder)."
        )
    config = options.get("config")
    if config is None:
        shared = ("revision", "subfolder", "cache_dir", "token", "trust_remote_code")
        given = {name: options[name] for name in shared if name in options}
        config = AutoConfig.from_pretrained(folder, **given)
    with torch.device("meta"):
        return type(cls.from_config(config))

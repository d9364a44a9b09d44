"""opacus: private training of a free vector beside frozen weights (`offset=True`).

opacus differentiates the owner of a free vector as a whole, and takes no module with buffers for
that, wherever below they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from torch import Tensor, nn

from lincon.attaching.constraint import constraints


@contextmanager
def constant_offset(model: nn.Module) -> Iterator[None]:
    """Keep each W₀ of ``model`` as a plain attribute of its owner instead of a buffer.

    Wrap the model and train it inside; afterwards W₀ is a buffer again. A model inside is not to
    be moved to another device or dtype, which plain attributes do not follow, and its state_dict is
    without W₀; `lincon.save` and `lincon.load` are as ever.

    Args:
        model: holds constraints made with ``offset=True``; others are left as they are.

    >>> import lincon, torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8))
    >>> constraint = lincon.constrain(model, "ring", dof=8, offset=True)
    >>> with constant_offset(model):
    ...     print(len(list(model.buffers())))  # opacus.PrivacyEngine().make_private(...)
    0
    >>> len(list(model.buffers()))
    1
    """
    places = [
        (constraint.owner, group.origin)
        for constraint in constraints(model)
        for group in constraint.groups
        if group.origin is not None
    ]
    for owner, name in places:
        origin = getattr(owner, name)
        delattr(owner, name)
        setattr(owner, name, origin)
    try:
        yield
    finally:
        for owner, name in places:
            origin = cast(Tensor, getattr(owner, name))
            delattr(owner, name)
            owner.register_buffer(name, origin)

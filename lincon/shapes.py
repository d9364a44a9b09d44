"""The types of tensors by dtype and shape in signatures: ``Float[Tensor, "batch channels"]``.

They are jaxtyping's where they are read: by type checkers, and by the tests, which set
LINCON_CHECK_SHAPES and check them at run time. Elsewhere each stands for the bare array type, so
that importing lincon does not build a class for every signature.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or "LINCON_CHECK_SHAPES" in os.environ:
    from jaxtyping import Bool as Bool
    from jaxtyping import Float as Float
    from jaxtyping import Float32 as Float32
    from jaxtyping import Float64 as Float64
    from jaxtyping import Int as Int
    from jaxtyping import Int8 as Int8
    from jaxtyping import Int64 as Int64
    from jaxtyping import Integer as Integer
    from jaxtyping import Num as Num
    from jaxtyping import Shaped as Shaped
    from jaxtyping import UInt8 as UInt8
    from jaxtyping import UInt16 as UInt16
else:

    class Unchecked:
        """A dtype's name in a signature."""

        def __class_getitem__(cls, array_and_shape: tuple[Any, str]) -> Any:
            array, _ = array_and_shape
            return array

    Bool = Float = Float32 = Float64 = Int = Int8 = Int64 = Integer = Unchecked
    Num = Shaped = UInt8 = UInt16 = Unchecked

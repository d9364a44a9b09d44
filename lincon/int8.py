"""Eight-bit execution: a merged copy whose weights and activations are int8, by torchao, after
calibration."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lincon.attaching.report import stored_bytes as stored_bytes
from lincon.errors import LinconError
from lincon.exporting import merged_copy


def to_int8(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """A merged copy of a model that computes in int8: post-training quantisation, weights by
    channel.

    torchao's scheme for x86 processors: activations unsigned with a scale for each tensor, from
    what the batches show; batch norms are folded into convolutions. The result runs as it is,
    slowly, since it spells out every rounding; `compiled` makes kernels of it. Needs torchao.

    Args:
        model: constrained or plain; its forward takes one tensor. It stays as it is.
        batches: inputs to calibrate on, (n, ...) each, n of 2 or more.

    Returns:
        A module for evaluation, for batches of any size.

    Raises:
        LinconError: no batches, or one of less than two.
    """
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    given = list(batches)
    if not given or min(len(batch) for batch in given) < 2:
        raise LinconError("Calibration takes one batch or more, of two inputs or more each.")
    merged = merged_copy(model)
    dynamic = ({0: torch.export.Dim.AUTO},)
    program = torch.export.export(merged, (given[0],), dynamic_shapes=dynamic).module()
    quantizer = x86.X86InductorQuantizer().set_global(
        x86.get_default_x86_inductor_quantization_config()
    )
    prepared: Any = prepare_pt2e(program, quantizer)
    with torch.no_grad():
        for batch in given:
            prepared(batch)
    return _without_unused(convert_pt2e(prepared))


def _without_unused(program: Any) -> nn.Module:
    """The program without the tensors that it does not read: the float weights that became
    integers."""
    read = {node.target for node in program.graph.nodes if node.op == "get_attr"}
    tensors = [*program.named_parameters(), *program.named_buffers()]
    for name in [name for name, _ in tensors if name not in read]:
        path, _, attribute = name.rpartition(".")
        delattr(program.get_submodule(path), attribute)
    module: nn.Module = program
    return module


def compiled(model: nn.Module, example: Tensor) -> Any:
    """An int8 model as kernels for this processor and inputs like ``example`` (torch.compile; needs
    a C++ compiler)."""
    from torchao.quantization.pt2e.lowering import lower_pt2e_quantized_to_x86

    return lower_pt2e_quantized_to_x86(model, (example,))

"""Eight-bit execution by torchao: a merged copy whose weights and activations are int8."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lincon.errors import LinconError
from lincon.exporting import merged_copy


def to_int8(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """A merged copy of a model that computes in int8, by post-training quantisation.

    This is torchao's scheme for x86 processors. Weights have a scale for each channel. Activations
    are unsigned and have a scale for each tensor, which the batches determine. Batch norms are
    folded into convolutions. The result runs slowly, because it spells out every rounding;
    `compiled` turns it into kernels. Needs torchao.

    Args:
        model: a constrained or plain model, whose forward takes one tensor. It does not change.
        batches: inputs to calibrate on, each (n, ...), where n is at least 2.

    Returns:
        A module for evaluation, which takes batches of any size.

    Raises:
        LinconError: there is no batch, or a batch holds fewer than two inputs.
    """
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    samples = list(batches)
    if not samples or min(len(batch) for batch in samples) < 2:
        raise LinconError("Calibration takes at least one batch, of at least two inputs each.")
    merged = merged_copy(model)
    dynamic = ({0: torch.export.Dim.AUTO},)
    program = torch.export.export(merged, (samples[0],), dynamic_shapes=dynamic).module()
    quantizer = x86.X86InductorQuantizer().set_global(
        x86.get_default_x86_inductor_quantization_config()
    )
    prepared: Any = prepare_pt2e(program, quantizer)
    with torch.no_grad():
        for batch in samples:
            prepared(batch)
    return _without_unused(convert_pt2e(prepared))


def _without_unused(program: Any) -> nn.Module:
    """The program without tensors that it does not read: float weights that became integers."""
    read = {node.target for node in program.graph.nodes if node.op == "get_attr"}
    tensors = [*program.named_parameters(), *program.named_buffers()]
    for name in [name for name, _ in tensors if name not in read]:
        path, _, attribute = name.rpartition(".")
        delattr(program.get_submodule(path), attribute)
    module: nn.Module = program
    return module


def compiled(model: nn.Module, example: Tensor) -> Any:
    """Compile an int8 model for this processor and inputs like ``example``.

    This is torch.compile, which needs a C++ compiler.
    """
    from torchao.quantization.pt2e.lowering import lower_pt2e_quantized_to_x86

    return lower_pt2e_quantized_to_x86(model, (example,))


def stored_bytes(model: nn.Module) -> int:
    """Bytes of the tensors in a model's state_dict. Tensors at one address count once."""
    tensors = [each for each in model.state_dict().values() if isinstance(each, Tensor)]
    # Empty tensors of any kind share an address.
    apart = {each.data_ptr() if each.numel() else id(each): each for each in tensors}
    return sum(each.nbytes for each in apart.values())

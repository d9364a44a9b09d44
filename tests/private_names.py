"""Private names of torch that lincon uses: the one list. Any of them may go in any release of torch.

`SEEN` holds the versions of torch that were seen to have them all; `make matrix` looks again.
"""

import ast
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).parent.parent

SEEN = "2.9.0", "2.13.0", "2.14.1", "2.15.0"
"""Versions of torch. 2.7 lacks _top_saved_tensors_default_hooks, and 2.8 is_fx_symbolic_tracing."""

MODULES = [
    "torch._C._are_functorch_transforms_active",
    "torch._C._autograd._top_saved_tensors_default_hooks",
    "torch._C._current_graph_task_id",
    "torch._C._disabled_torch_function_impl",
    "torch._C._functorch.get_unwrapped",
    "torch._C._functorch.is_batchedtensor",
    "torch._C._functorch.is_legacy_batchedtensor",
    "torch._C._functorch.peek_interpreter_stack",
    "torch._C._get_dispatch_mode",
    "torch._C._get_tracing_state",
    "torch._C._len_torch_dispatch_stack",
    "torch._C._storage_Use_Count",
    "torch._C._TorchDispatchModeKey.PROXY",
    "torch._C.DisableTorchFunctionSubclass",
    "torch.autograd.forward_ad._current_level",
    "torch.fx._symbolic_trace.is_fx_symbolic_tracing",
    "torch.nn.modules.batchnorm._NormBase",
    "torch.nn.modules.conv._ConvNd",
    "torch.nn.utils.parametrize._inject_new_class",
    "torch.nn.utils.parametrize._inject_property",
    "torch.utils._python_dispatch._get_current_dispatch_mode",
    "torch.utils._pytree.tree_leaves",
    "torch.utils._pytree.tree_map_only",
]
"""Names in modules of torch."""

ATTRIBUTES: dict[str, tuple[Any, ...]] = {
    "_buffers _call_impl _forward_hooks _forward_hooks_always_called _forward_hooks_with_kwargs "
    "_forward_pre_hooks _load_state_dict_pre_hooks _modules _parameters _register_state_dict_hook "
    "_state_dict_hooks": (nn.Module(),),
    "_flat_weights _flat_weights_names _init_flat_weights": (nn.RNN(1, 1),),
    "_version": (torch.zeros(1),),
    "_cdata": (torch.zeros(1).untyped_storage(),),
}
"""Attributes of objects of torch, each with an object that has them."""

ELSEWHERE = {
    "_getframe": "CPython's, in sys",
    "_replace": "a method of every NamedTuple, named so that no field has its name",
    "_dynamo_marked_constant": "is set, as torch.compiler.assume_constant_result sets it",
    "_module_parameters": "of DistributedDataParallel, under a group of processes alone",
    "_initialize_missing_keys": "transformers'",
}
"""Private names that are used and that a bare torch does not show."""


def missing() -> list[str]:
    """The listed names that this torch lacks."""
    lost = [name for name in MODULES if not _exists(name)]
    for names, (example,) in ATTRIBUTES.items():
        kind = type(example).__name__
        lost += [f"{kind}.{name}" for name in names.split() if not hasattr(example, name)]
    return lost


def _exists(dotted: str) -> bool:
    path = dotted.split(".")
    for length in range(len(path), 0, -1):
        try:
            found: Any = import_module(".".join(path[:length]))
        except ImportError:
            continue
        try:
            for part in path[length:]:
                found = getattr(found, part)
        except AttributeError:
            return False
        return True
    return False


def sources() -> list[Path]:
    """The files of the core."""
    folders = ROOT / "lincon", ROOT / "generators"  # the links in the first are not followed
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def used() -> dict[str, str]:
    """Private names in lincon and its generators that none of their files defines, each with a file."""
    trees = {path: ast.parse(path.read_text()) for path in sources()}
    own = {name for tree in trees.values() for name in _defined(tree)}
    return {
        name: str(path.relative_to(ROOT))
        for path, tree in trees.items()
        for name in _read(tree)
        if name.startswith("_") and not name.endswith("__") and name not in own
    }


def _defined(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.arg):
            yield node.arg


def _read(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torch"):
            yield from (node.module or "").split(".")
            yield from (alias.name for alias in node.names)


def listed() -> set[str]:
    """Every part of every listed name."""
    parts = {part for name in MODULES for part in name.split(".")}
    return parts | {name for names in ATTRIBUTES for name in names.split()} | set(ELSEWHERE)


if __name__ == "__main__":
    print(torch.__version__, *missing(), sep="\n")
    sys.exit(bool(missing()))

"""Many processes: DDP and FSDP2 give the weights of one process on the joined batch (BEHAVIOURS 23 to 27, 29)."""

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.fsdp import fully_shard as torch_fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import lincon
from lincon.slicing import slice_tensors

from .ranks import on_ranks, outcome

STEPS, WIDTH = 5, 16
EXACT, SUMMED, ROUNDED = 1e-6, 1e-5, 5e-3
"""Largest difference after five steps: of sums in another order, of one sum over 896 weights, of values in bfloat16."""


class Block(nn.Module):
    def __init__(self, recompute):
        super().__init__()
        self.recompute = recompute
        self.norm, self.a, self.b = (
            nn.LayerNorm(WIDTH),
            nn.Linear(WIDTH, WIDTH),
            nn.Linear(WIDTH, WIDTH),
        )

    def forward(self, x):
        return (
            checkpoint(self._forward, x, use_reentrant=False)
            if self.recompute
            else self._forward(x)
        )

    def _forward(self, x):
        return x + self.b(self.a(self.norm(x)).relu())


def network(recompute=False, **options):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, WIDTH), *(Block(recompute) for _ in range(3)), nn.Linear(WIDTH, 4)
    )
    lincon.constrain(model, "ring", **{"dof": 0.3, "seed": 3, **options})
    return model


def wide(**options):
    """Megabytes of parameters, which DDP reduces in several buckets."""
    torch.manual_seed(0)
    hidden = [layer for _ in range(4) for layer in (nn.Linear(512, 512), nn.ReLU())]
    model = nn.Sequential(nn.Linear(8, 512), *hidden, nn.Linear(512, 4))
    lincon.constrain(model, "ring", dof=0.3, seed=3, where=["1.weight", "5.weight"], **options)
    return model


def ddp(model, **options):
    return DistributedDataParallel(model, **options)


def compiled_ddp(model, backend="aot_eager"):
    torch._dynamo.reset()
    return torch.compile(DistributedDataParallel(model, bucket_cap_mb=1), backend=backend)


def ddp_of_compiled(model, backend="aot_eager"):
    torch._dynamo.reset()
    return DistributedDataParallel(torch.compile(model, backend=backend), bucket_cap_mb=1)


def fsdp(model, **options):
    return lincon.fully_shard(model, model[1:4], **options)


def compiled_fsdp(model):
    torch._dynamo.reset()
    return torch.compile(fsdp(model), backend="aot_eager")


def compiled_blocks(model):
    torch._dynamo.reset()
    for block in model[1:4]:
        block.compile(backend="aot_eager")
    return fsdp(model)


@dataclass
class Case:
    wrap: Callable[..., nn.Module]
    options: dict[str, Any] = field(default_factory=dict)
    make: Callable[..., nn.Module] = network
    parts: int = 1
    autocast: bool = False
    leaf: bool = False
    tolerance: float = EXACT


MODELS: dict[str, dict[str, Any]] = {
    "global ring": {},
    "local rings": {"scope": ["1", "2", "3"], "where": ["1.*", "2.*", "3.*"]},
    "a ring a tensor": {"scope": "tensor"},
    "offset": {"offset": True},
    "layer by layer": {"materialize": "layer"},
    "scaled gradient": {"gradient": "gram"},
    "recomputed": {"recompute": True},
    "recomputed, layer by layer": {"recompute": True, "materialize": "layer"},
}
LOW = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
ONE = {"dof": 1e-9, "scale": "isometric"}
"""One number moves all weights: with multipliers of about one its gradient would be too large."""
CASES = {
    **{f"ddp, {name}": Case(ddp, options) for name, options in MODELS.items()},
    **{f"fsdp, {name}": Case(fsdp, options) for name, options in MODELS.items()},
    "ddp, one free number": Case(ddp, ONE, tolerance=SUMMED),
    "fsdp, one free number": Case(fsdp, ONE, tolerance=SUMMED),
    "ddp, accumulated": Case(ddp, parts=2),
    "fsdp, accumulated": Case(fsdp, parts=2),
    "ddp, autocast": Case(ddp, autocast=True, tolerance=ROUNDED),
    "fsdp, autocast": Case(fsdp, autocast=True, tolerance=ROUNDED),
    "fsdp, mixed precision": Case(partial(fsdp, mp_policy=LOW), tolerance=ROUNDED),
    "fsdp, gathered again": Case(partial(fsdp, reshard_after_forward=True)),
    "fsdp, gathered again, layer by layer": Case(
        partial(fsdp, reshard_after_forward=True), {"materialize": "layer"}, leaf=True
    ),
    "fsdp, gradient of the input": Case(fsdp, leaf=True),
    "ddp, static graph": Case(partial(ddp, static_graph=True)),
    "ddp, unused searched": Case(partial(ddp, find_unused_parameters=True)),
    "ddp, gradients in buckets": Case(partial(ddp, gradient_as_bucket_view=True)),
    "compiled ddp, several buckets": Case(compiled_ddp, make=wide),
    "ddp of compiled, several buckets": Case(ddp_of_compiled, make=wide),
    "compiled ddp, layer by layer": Case(compiled_ddp, {"materialize": "layer"}, make=wide),
    "compiled fsdp": Case(compiled_fsdp),
    "fsdp, compiled blocks": Case(compiled_blocks),
}


def train(case, wrap, rank=0, world=1):
    """The state after five steps, and how many gradients came to the optimiser."""
    model = case.make(**case.options)
    engine = wrap(model)
    before = {name: whole(p).clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(STEPS):
        batch = torch.randn(16, 8, generator=torch.Generator().manual_seed(step)).chunk(world)[rank]
        optimizer.zero_grad()
        for number, part in enumerate(parts := batch.chunk(case.parts)):
            reduce_gradients(engine, number == len(parts) - 1)
            with torch.autocast("cpu", torch.bfloat16, enabled=case.autocast):
                output = engine(part.requires_grad_() if case.leaf else part)
            (output.float().square().mean() / case.parts).backward()
        missing = [name for name, p in model.named_parameters() if p.grad is None]
        assert not missing, f"rank {rank} trains no {missing}"
        optimizer.step()
    after = {name: whole(p) for name, p in model.named_parameters()}
    still = [name for name in after if "free" in name and torch.equal(before[name], after[name])]
    assert not still, f"rank {rank} has not moved {still}"
    return {name: tensor.detach().clone() for name, tensor in after.items()}


def whole(tensor):
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach()


def reduce_gradients(engine, wanted):
    if hasattr(engine, "set_requires_gradient_sync"):
        engine.set_requires_gradient_sync(wanted)
    elif isinstance(engine, DistributedDataParallel):
        engine.require_backward_grad_sync = wanted


def train_all(rank, world):
    """Compiled ones with two ranks alone: what four compile on two cores takes minutes."""
    chosen = {name: case for name, case in CASES.items() if world == 2 or "compiled" not in name}
    return {name: outcome(train, case, case.wrap, rank, world) for name, case in chosen.items()}


def everything(rank, world, folder):
    """What the tests below ask of two ranks, in processes that are started once."""
    return {
        "trained": train_all(rank, world),
        "files": outcome(sharded_files, rank, world, folder),
        "meta": outcome(from_meta, rank, world, folder),
        "buckets": outcome(count_buckets, rank, world),
        "mistakes": outcome(make_mistakes, rank, world),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def two(folder):
    """By rank, what became of `everything`."""
    torch.save(from_nothing().state_dict(), folder / "whole.pt")
    return on_ranks(2, everything, folder, folder)


@pytest.fixture(scope="module")
def trained(two, tmp_path_factory):
    return {
        2: [rank["trained"] for rank in two],
        4: on_ranks(4, train_all, tmp_path_factory.mktemp("four")),
    }


@pytest.mark.long
@pytest.mark.parametrize(
    ("world", "name"),
    [(n, name) for name in CASES for n in (2, 4) if n == 2 or "compiled" not in name],
)
def test_ranks_train_as_one_process_on_the_joined_batch(trained, world, name):
    case = CASES[name]
    reference = train(case, lambda model: model)
    for rank in trained[world]:
        assert not isinstance(rank[name], str), rank[name]
        assert list(rank[name]) == list(reference)
        for key, expected in reference.items():
            torch.testing.assert_close(rank[name][key], expected, rtol=0, atol=case.tolerance)
            assert torch.equal(rank[name][key], trained[world][0][name][key])


def resume(rank, world, folder, steps):
    """Train by FSDP2 from the checkpoint in ``folder`` if it is there, and leave another."""
    model = fsdp(network(offset=True))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    if (folder / ".metadata").exists():
        dcp_load(model, optimizer, folder)
    loaded = {name: whole(p).clone() for name, p in model.named_parameters()}
    for step in steps:
        batch = torch.randn(16, 8, generator=torch.Generator().manual_seed(step)).chunk(world)[rank]
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
    if steps:
        dcp.save(
            dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True)),
            checkpoint_id=folder,
        )
    return {
        "loaded": loaded,
        "trained": {name: whole(p).clone() for name, p in model.named_parameters()},
    }


def dcp_load(model, optimizer, folder, **options):
    state = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
    dcp.load(state, checkpoint_id=folder, **options)
    set_state_dict(
        model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
    )


def test_a_checkpoint_of_four_ranks_goes_on_with_two_and_with_one(tmp_path):
    for name in ("four", "two", "checkpoint"):
        (tmp_path / name).mkdir()
    four = on_ranks(4, resume, tmp_path / "four", tmp_path / "checkpoint", [0, 1])
    two = on_ranks(2, resume, tmp_path / "two", tmp_path / "checkpoint", [2])
    assert all(
        torch.equal(two[0]["loaded"][name], tensor) for name, tensor in four[0]["trained"].items()
    )
    model = network(offset=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    dcp_load(model, optimizer, tmp_path / "checkpoint", no_dist=True)
    assert all(
        torch.equal(tensor, two[0]["trained"][name]) for name, tensor in model.named_parameters()
    )
    reference = network(offset=True)
    alone = torch.optim.AdamW(reference.parameters(), lr=0.01)
    for step in range(3):
        alone.zero_grad()
        reference(
            torch.randn(16, 8, generator=torch.Generator().manual_seed(step))
        ).square().mean().backward()
        alone.step()
    torch.testing.assert_close(
        optimizer.state_dict()["state"], alone.state_dict()["state"], rtol=1e-4, atol=1e-7
    )
    for name, tensor in reference.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), tensor, rtol=0, atol=1e-5)


def sharded_files(rank, world, folder):
    """A file of a sharded model, that of the same model before it was sharded, and one loaded into a sharded model."""
    model, other = network(), network()
    expected = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    bytes_ = lincon.save(fsdp(model), folder / "sharded.safetensors")
    with torch.no_grad():
        other.free.mul_(2)
    lincon.load(fsdp(other), folder / "sharded.safetensors")
    same = all(torch.equal(whole(p), expected[name]) for name, p in other.named_parameters())
    wrapped = lincon.save(
        DistributedDataParallel(network()), folder / f"wrapped-{rank}.safetensors"
    )
    refused = outcome(lincon.save, other, folder / "missing" / "file.safetensors")
    shared = lincon.save(torch_fully_shard(tied()), folder / "tied.safetensors")
    adapter = lincon.save(fsdp(frozen()), folder / "adapter.safetensors", only="trained")
    base = outcome(lincon.load, fsdp(frozen()), folder / "adapter.safetensors")
    return {
        "bytes": bytes_,
        "same": same,
        "wrapped": wrapped,
        "refused": refused,
        "tied": shared,
        "adapter": adapter,
        "base": base,
    }


def frozen():
    """A model of which the free vector alone is trained."""
    model = network(offset=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name == "free")
    return model


def tied():
    """Two names for one weight that is not generated."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH))
    model[1].weight = model[0].weight
    lincon.constrain(model, "ring", dof=0.3, where="2.weight")
    return model


def test_files_of_sharded_and_wrapped_models_are_those_of_the_plain_one(two, folder):
    plain = folder / "plain.safetensors"
    size = lincon.save(network(), plain)
    for rank, outcomes in enumerate(rank["files"] for rank in two):
        assert outcomes["bytes"] == outcomes["wrapped"] == size and outcomes["same"]
        assert outcomes["adapter"] == lincon.save(frozen(), folder / "a", only="trained") < size
        assert "is sharded over the ranks" in outcomes["base"]
        assert re.search(
            "LinconError: .*not a folder", outcomes["refused"]
        )  # on every rank, though one alone writes
        assert outcomes["tied"] == lincon.save(tied(), folder / "whole-tied.safetensors")
        assert (folder / f"wrapped-{rank}.safetensors").read_bytes() == plain.read_bytes()
    assert (folder / "sharded.safetensors").read_bytes() == plain.read_bytes()
    assert (folder / "tied.safetensors").read_bytes() == (
        folder / "whole-tied.safetensors"
    ).read_bytes()


def unconstrained():
    return nn.Sequential(nn.Linear(8, WIDTH), Block(False), nn.Linear(WIDTH, 4))


def sharded():
    return torch_fully_shard(network())


MISTAKES = {
    "constrained late": lambda rank: lincon.constrain(
        torch_fully_shard(unconstrained()), "ring", dof=0.1
    ),
    "constrained in DDP": lambda rank: lincon.constrain(
        DistributedDataParallel(unconstrained()), "ring", dof=0.1
    ),
    "read": lambda rank: sharded()[1].a.weight,
    "all read": lambda rank: lincon.constraints(sharded())[0].weights(),
    "merged": lambda rank: lincon.merge(sharded()),
    "pruned": lambda rank: lincon.prune(sharded(), 0.5),
    "quantised": lambda rank: lincon.quantize(sharded()),
    "sliced": lambda rank: slice_tensors(sharded(), {"1.a.weight": [torch.arange(WIDTH) > 1]}),
    "projected": lambda rank: lincon.constraints(sharded())[0].project({}),
    "sharded twice": lambda rank: lincon.fully_shard(sharded()),
    "a block of another model": lambda rank: lincon.fully_shard(network(), [nn.Linear(2, 2)]),
    "another seed a rank": lambda rank: lincon.fully_shard(network(seed=rank)),
    "another offset a rank": lambda rank: lincon.fully_shard(moved(rank)),
    "another seed a rank, checked": lambda rank: lincon.check_ranks(network(seed=rank)),
    "another block a rank": lambda rank: lincon.check_ranks(in_block(1 + rank)),
    "merged while gathered": lambda rank: lincon.merge(gathered()),
    "pruned while gathered": lambda rank: lincon.prune(gathered(), 0.5),
    "projected while gathered": lambda rank: lincon.constraints(gathered())[0].project({}),
    "loaded by one rank": lambda rank: lincon.load(sharded(), saved(rank)),
}
REMEDIES = {
    "constrained late": "'FSDPSequential' is sharded over the ranks: change what is constrained before fully_shard",
    "constrained in DDP": "in a DistributedDataParallel already: constrain it first",
    "read": "'free' is sharded over the ranks.*in a forward, or after model.unshard",
    "all read": "'free' is sharded",
    "merged": "'FSDPSequential' is sharded over the ranks: change what is constrained before",
    "pruned": "is sharded over the ranks: change what is constrained before",
    "quantised": "is sharded over the ranks: change what is constrained before",
    "sliced": "is sharded over the ranks: change what is constrained before",
    "projected": "is sharded over the ranks: change what is constrained before",
    "sharded twice": "'free' is sharded already",
    "a block of another model": "A Linear among the blocks is not a part of this Sequential",
    "another seed a rank": "Rank 1 constrains this Sequential in another way .* of free.*give all ranks one",
    "another offset a rank": "Rank 1 constrains this Sequential in another way",
    "another seed a rank, checked": "Rank 1 constrains this Sequential in another way",
    "another block a rank": "Rank 1 constrains this Sequential in another way .*1.free, 2.free",
    "merged while gathered": "is sharded over the ranks: change what is constrained before fully_shard",
    "pruned while gathered": "is sharded over the ranks: change what is constrained before fully_shard",
    "projected while gathered": "is sharded over the ranks: change what is constrained before fully_shard",
    "loaded by one rank": "No such file",
}


def in_block(number):
    torch.manual_seed(0)
    model = nn.Sequential(*(Block(False) for _ in range(3)))
    lincon.constrain(model[number], "ring", dof=0.3)
    return model


def gathered():
    model = sharded()
    model.unshard()
    return model


def saved(rank):
    """A file that the second rank does not have."""
    path = Path(tempfile.mkdtemp()) / "model.safetensors"
    if rank == 0:
        lincon.save(network(), path)
    return path


def moved(rank):
    torch.manual_seed(rank)
    model = unconstrained()
    lincon.constrain(model, "ring", dof=0.1, offset=True)
    return model


def make_mistakes(rank, world):
    return {name: str(outcome(make, rank)) for name, make in MISTAKES.items()}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_refused_by_name_on_every_rank(two, name):
    for rank in (rank["mistakes"] for rank in two):
        assert re.search(REMEDIES[name], rank[name]), rank[name]


def test_without_a_process_group_sharding_says_so_and_one_process_agrees_with_itself():
    with pytest.raises(lincon.LinconError, match=r"no process group.*torchrun"):
        lincon.fully_shard(network())
    lincon.check_ranks(network())


def from_nothing():
    model = unconstrained()
    lincon.constrain(model, "ring", dof=0.3, seed=3, scale=None)
    return model


def from_meta(rank, world, folder):
    """Built without memory, sharded, and filled from a whole checkpoint."""
    with torch.device("meta"):
        model = from_nothing()
    lincon.fully_shard(model, [model[1]])
    model.to_empty(device="cpu")
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(
        model, torch.load(folder / "whole.pt") if rank == 0 else {}, options=options
    )
    matched = network()
    with torch.no_grad():
        for parameter in matched.parameters():
            parameter.mul_(2)
    lincon.merge(matched)
    lincon.constrain(matched, "ring", dof=0.3, seed=3)  # other multipliers
    fsdp(matched)
    state = network().state_dict()
    state["free"] += 1
    set_model_state_dict(matched, dict(state) if rank == 0 else {}, options=options)
    return {
        "output": model(torch.ones(2, 8)).detach(),
        "matched": matched(torch.ones(2, 8)).detach(),
    }


def test_multipliers_come_to_every_rank_from_the_first(two):
    model = network()
    with torch.no_grad():
        model.get_parameter("free").add_(1)
    for rank in two:
        expected = model(torch.ones(2, 8)).detach()
        torch.testing.assert_close(rank["meta"]["matched"], expected, rtol=0, atol=EXACT)


def test_a_model_on_the_meta_device_is_sharded_and_filled(two, folder):
    model = from_nothing()
    model.load_state_dict(torch.load(folder / "whole.pt"))
    expected = model(torch.ones(2, 8)).detach()
    for rank in two:
        torch.testing.assert_close(rank["meta"]["output"], expected, rtol=0, atol=EXACT)


def count_buckets(rank, world):
    """Numbers that DDP reduces in a step, bucket after bucket."""
    counts = {}
    for name, model in {"wide": wide(), "ring": network(dof=10)}.items():
        engine = ddp(model, bucket_cap_mb=1)
        sizes = counts[name] = []
        engine.register_comm_hook(sizes, counted)
        for _ in range(2):  # the first step has buckets of its own
            sizes.clear()
            engine(torch.randn(4, 8)).square().mean().backward()
        counts[f"{name}, all"] = sum(p.numel() for p in model.parameters())
    return counts


def counted(sizes, bucket):
    sizes.append(bucket.buffer().numel())
    return allreduce_hook(None, bucket)


def test_ddp_reduces_what_is_trained_and_nothing_else(two):
    for rank in (rank["buckets"] for rank in two):
        assert len(rank["wide"]) > 2  # the tests of compilation with several buckets have several
        assert sum(rank["wide"]) == rank["wide, all"]
        assert sum(rank["ring"]) == rank["ring, all"] < 400


def test_a_ddp_made_before_is_warned_of():
    model = unconstrained()
    holder = object.__new__(DistributedDataParallel)
    holder.__dict__["_module_parameters"] = list(model.parameters())
    with pytest.warns(
        lincon.LinconWarning, match="DistributedDataParallel made before still holds"
    ):
        lincon.constrain(model, "ring", dof=0.1)

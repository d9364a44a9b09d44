"""Programs: everything that may happen to a constrained model, in any order, beside a dense oracle.

    python -m tests.programs --count 1000

runs so many random programs and writes what came of it to `benchmarks/results`. The oracle is a plain model of
float64 whose weights are M @ W + W0 with a stored matrix M, and which is trained by the chain rule; it shares no code
with the library but G's dense form, which the laws check. After every step both give equal outputs, and G and its
adjoint are those of the stored matrix.
"""

import argparse
import contextlib
import copy
import json
import pickle
import tempfile
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from torch import Tensor, nn

import lincon
from lincon.attaching.group import Group
from lincon.testing import values

TOLERANCE = 1e-9
"""Relative, of float64: the order of sums differs."""

STEPS = 25
"""Of a program, at most."""

GENERATORS = [
    ("ring", {}),
    ("ring", {"tile": 1}),
    ("ring", {"order": "deck"}),
    ("hash", {}),
    ("random", {}),
    ("fold", {}),
    ("sparse", {}),
    ("dense", {}),
    ("fastfood", {}),
    ("kronecker", {}),
    ("codebook", {}),
    ("identity", {}),
]

seen: Counter[str] = Counter()
"""How often each kind of step was taken: a soak that never prunes says nothing of pruning."""


def plain(seed: int) -> nn.Sequential:
    """A small model of several kinds of layers, in float64."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv1d(2, 3, 3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(12, 8),
        nn.LayerNorm(8),
        nn.Tanh(),
        nn.Linear(8, 4, bias=False),
    ).double()


def inputs(seed: int, items: int = 5) -> Tensor:
    return torch.randn(
        items, 2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


class Oracle:
    """The same model with stored matrices: weights = M @ W + W0 for each group, by name of its free vector."""

    frozen: frozenset[str] = frozenset()
    """Free vectors that are quantised."""

    def __init__(self, model: nn.Module) -> None:
        self.plain = plain(0)
        (constraint,) = lincon.constraints(model)
        self.ledgers = {group.free: list(group.ledger) for group in constraint.groups}
        self.matrices = {group.free: dense(group) for group in constraint.groups}
        self.free = {name: w.detach().clone() for name, w in constraint.free.items()}
        self.origins = {group.free: origin_of(model, group) for group in constraint.groups}
        self.others = {
            name: p.detach().clone()
            for name, p in model.named_parameters()
            if name not in self.free
        }

    def weights(self) -> dict[str, Tensor]:
        named = {}
        for name, matrix in self.matrices.items():
            rows = matrix @ self.free[name] + self.origins[name]
            for entry in self.ledgers[name]:
                named[entry.name] = rows[entry.start : entry.stop].view(entry.shape)
        return named

    def output(self, x: Tensor) -> Tensor:
        tensors = {**self.weights(), **self.others}
        output: Tensor = torch.func.functional_call(self.plain, tensors, (x,))
        return output

    def train(self, x: Tensor, rate: float) -> None:
        """A step of gradient descent on the mean square of the output, by the chain rule."""
        tensors = {
            name: t.detach().requires_grad_() for name, t in (self.weights() | self.others).items()
        }
        loss = torch.func.functional_call(self.plain, tensors, (x,)).square().mean()
        gradients = dict(
            zip(tensors, torch.autograd.grad(loss, list(tensors.values())), strict=True)
        )
        for name, matrix in self.matrices.items():
            rows = torch.cat([gradients[entry.name].flatten() for entry in self.ledgers[name]])
            if name not in self.frozen:
                self.free[name] = self.free[name] - rate * (matrix.T @ rows)
        self.others = {name: t - rate * gradients[name] for name, t in self.others.items()}


def origin_of(model: nn.Module, group: Group) -> Tensor:
    """W0, (rows,)."""
    if group.drawn is not None:
        return group.drawn.rows(0, group.generator.rows)
    if group.origin is not None:
        return model.get_buffer(group.origin).clone()
    return torch.zeros(group.generator.rows, dtype=torch.float64)


def dense(group: Group) -> Tensor:
    """M = diag(multipliers) G diag(column scale), (rows, dof)."""
    scales = torch.tensor(group.ledger.scales, dtype=torch.float64)
    rows = scales.repeat_interleave(torch.tensor(group.ledger.sizes))
    matrix: Tensor = rows[:, None] * group.generator.dense()
    if group.isometric:
        norms = matrix.norm(dim=0)
        matrix = matrix / norms.where(norms > 0, 1.0)
    return matrix


class Programs(RuleBasedStateMachine):
    """A constrained model and its oracle."""

    model: nn.Module
    base: nn.Module
    oracle: Oracle
    pruned = False
    generator: str
    arguments: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self.lawful: set[lincon.Generator] = set()
        """Generators whose laws hold, as was seen."""

    def teardown(self) -> None:
        seen["programs"] += 1

    # Beginnings.

    @initialize(
        named=st.sampled_from(GENERATORS),
        scale=st.sampled_from(["match", "isometric", None]),
        scope=st.sampled_from(["model", "tensor", ["0", "3", "6"]]),
        offset=st.sampled_from([False, True, "seed"]),
        materialize=st.sampled_from(["model", "layer"]),
        dof=st.sampled_from([0.1, 0.25, 0.5]),
        seed=st.integers(0, 5),
    )
    def constrain(self, named: tuple[str, dict[str, Any]], seed: int, **arguments: Any) -> None:
        self.generator, options = named
        self.arguments = {**arguments, **options, "seed": seed}
        if self.generator == "identity":
            self.arguments["dof"] = None
        if self.generator == "codebook":  # its clusters are those of the weights themselves
            self.arguments["offset"] = False
        model = plain(seed)
        self.base = copy.deepcopy(model)
        before = model(inputs(9))
        lincon.constrain(model, self.generator, **self.arguments)
        # It starts at the weights: as W0, or as what the identity makes of them.
        at_weights = {True: True, False: self.generator == "identity", "seed": False}
        if at_weights[self.arguments["offset"]]:
            assert close(model(inputs(9)), before)
        self.restart(model)

    def restart(self, model: nn.Module) -> None:
        self.model, self.oracle, self.pruned = model, Oracle(model), False

    @property
    def constraint(self) -> lincon.Constraint:
        (constraint,) = lincon.constraints(self.model)
        return constraint

    # Laws.

    @invariant()
    def outputs_are_the_oracles(self) -> None:
        if "oracle" not in self.__dict__:
            return
        x = inputs(7)
        assert close(self.model(x), self.oracle.output(x))
        for name, weight in self.constraint.weights().items():
            assert close(weight, self.oracle.weights()[name]), name
        left = [name for name in self.model.state_dict() if name in self.oracle.weights()]
        assert not left, left

    @invariant()
    def generators_keep_their_laws(self) -> None:
        if "oracle" not in self.__dict__:
            return
        for generator in {group.generator for group in self.constraint.groups} - self.lawful:
            matrix = generator.dense()
            free, rows = values(generator.dof, 1), values(generator.rows, 2)
            assert close(generator.unpack(free), matrix @ free)
            assert close(generator.adjoint(rows), matrix.T @ rows)
            self.lawful.add(generator)

    # Steps.

    @rule(seed=st.integers(0, 99), rate=st.sampled_from([0.01, 0.1]))
    def train(self, seed: int, rate: float) -> None:
        x = inputs(seed)
        optimizer = torch.optim.SGD([p for p in self.model.parameters() if p.requires_grad], rate)
        loss: Tensor = self.model(x).square().mean()
        loss.backward()
        optimizer.step()
        self.model.zero_grad()
        self.oracle.train(x, rate)
        seen["train"] += 1

    @rule(seed=st.integers(0, 99), grad=st.sampled_from([torch.no_grad, torch.inference_mode]))
    def infer(self, seed: int, grad: Any) -> None:
        with grad():
            first, second = self.model(inputs(seed)), self.model(inputs(seed))
        assert torch.equal(first, second)
        assert close(first, self.oracle.output(inputs(seed)))
        seen["infer"] += 1

    @rule()
    def save_and_load(self) -> None:
        expected = self.model(inputs(1))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            lincon.save(self.model, path)
            # The file holds a checksum of the model's own W0 alone: it takes the same base.
            of_base = self.arguments["offset"] is True
            fresh = copy.deepcopy(self.base) if of_base else plain(123)
            lincon.load(fresh, path)
        assert torch.equal(fresh(inputs(1)), expected)
        self.model = fresh
        seen["save and load"] += 1

    @rule(place=st.integers(0, 2**30), whole=st.booleans())
    def load_a_damaged_file(self, place: int, whole: bool) -> None:
        fresh = plain(123)
        before = fresh(inputs(1))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            lincon.save(self.model, path)
            content = bytearray(path.read_bytes())
            place %= len(content)
            content[place] ^= 1
            path.write_bytes(content if whole else content[:place])
            try:
                lincon.load(fresh, path)
            except lincon.FileError:
                seen["damaged file"] += 1
            else:
                raise AssertionError("a damaged file was loaded")
        assert torch.equal(fresh(inputs(1)), before) and not lincon.constraints(fresh)

    @precondition(lambda self: self.arguments["offset"] is True)
    @rule()
    def save_and_load_an_adapter(self) -> None:
        expected = self.model(inputs(1))
        fresh = copy.deepcopy(self.base)
        others = {name: self.model.get_parameter(name) for name in self.oracle.others}
        fresh.load_state_dict(others, strict=False)  # what is beside W0 has been trained
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "adapter.safetensors"
            self.model.requires_grad_(False)
            lincon.save(self.model, path, only="trained")
            lincon.load(fresh, path)
        self.model = fresh
        for parameter in fresh.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        assert torch.equal(fresh(inputs(1)), expected)
        seen["adapter"] += 1

    @rule()
    def infer_in_two_threads(self) -> None:
        def run(seed: int) -> Tensor:
            with torch.no_grad():
                output: Tensor = self.model(inputs(seed))
            return output

        with ThreadPoolExecutor(2) as pool:
            for seed, output in enumerate(pool.map(run, range(4))):
                assert close(output, self.oracle.output(inputs(seed)))
        seen["threads"] += 1

    @rule()
    def constrain_like_the_spec_says(self) -> None:
        if self.pruned or self.oracle.frozen or self.generator == "codebook":  # tables
            return
        fresh = copy.deepcopy(self.base) if self.arguments["offset"] is True else plain(123)
        lincon.constrain_like(fresh, json.loads(json.dumps(lincon.spec(self.model))))
        fresh.load_state_dict(self.model.state_dict())
        assert torch.equal(fresh(inputs(1)), self.model(inputs(1)))
        self.model = fresh
        seen["constrain like"] += 1

    @rule()
    def release(self) -> None:
        self.constraint.release()
        seen["release"] += 1

    @rule()
    def state_dict(self) -> None:
        if self.pruned:
            return
        fresh = copy.deepcopy(self.model)
        with torch.no_grad():
            for parameter in fresh.parameters():
                parameter.zero_()
        fresh.load_state_dict(copy.deepcopy(self.model.state_dict()))
        assert torch.equal(fresh(inputs(1)), self.model(inputs(1)))
        self.model = fresh
        seen["state_dict"] += 1

    @rule()
    def deepcopy(self) -> None:
        left = self.model
        self.model = copy.deepcopy(left)
        with torch.no_grad():  # what happens to one does not reach the other
            for parameter in left.parameters():
                parameter.zero_()
        seen["deepcopy"] += 1

    @rule()
    def pickled(self) -> None:
        self.model = pickle.loads(pickle.dumps(self.model))
        seen["pickle"] += 1

    @rule(materialize=st.sampled_from(["model", "layer"]))
    def materialize(self, materialize: str) -> None:
        self.constraint.materialize = materialize
        seen["materialize"] += 1

    @rule()
    def an_error_in_the_forward(self) -> None:
        with contextlib.suppress(RuntimeError):
            self.model(torch.zeros(1, 2, 9, dtype=torch.float64))
        seen["error"] += 1

    @rule()
    def a_write_is_refused(self) -> None:
        weight: Any = self.model.get_submodule("3").weight
        with torch.no_grad():
            try:
                weight.mul_(2)
            except lincon.TargetError:
                seen["refused write"] += 1
            else:
                raise AssertionError("a write to a generated weight was accepted")

    @precondition(lambda self: not self.oracle.frozen)
    @rule(keep=st.sampled_from([0.5, 0.8]))
    def prune_free(self, keep: float) -> None:
        if self.constraint.dof < 6:
            return
        with lincon_warnings_off():
            masks = lincon.prune(self.model, keep)
        for name, mask in masks.items():
            self.oracle.matrices[name] = self.oracle.matrices[name][:, mask]
            self.oracle.free[name] = self.oracle.free[name][mask]
        self.pruned = True
        seen["prune free"] += 1

    @precondition(lambda self: not self.oracle.frozen)
    @rule(keep=st.sampled_from([0.5, 0.8]))
    def prune_weights(self, keep: float) -> None:
        if self.arguments["offset"] or self.arguments["scale"] == "isometric":
            return
        before = {name: w.detach().clone() for name, w in self.constraint.weights().items()}
        if sum(int(w.count_nonzero()) for w in before.values()) < 12:
            return
        with lincon_warnings_off():
            masks = lincon.prune(self.model, keep, level="weights")
        after = self.constraint.weights()
        magnitudes = torch.cat([w.flatten() for w in before.values()]).abs()
        kept = torch.cat([w.detach().flatten() for w in after.values()]) != 0
        if bool(kept.any()) and bool((~kept).any()):  # the smallest went first
            assert magnitudes[kept].min() >= magnitudes[~kept].max()
        for name, mask in masks.items():
            rows = torch.cat([after[e.name].detach().flatten() for e in self.oracle.ledgers[name]])
            matrix = self.oracle.matrices[name] * (rows != 0)[:, None]
            self.oracle.matrices[name] = matrix[:, mask]
            self.oracle.free[name] = self.oracle.free[name][mask]
        self.pruned = True
        seen["prune weights"] += 1

    @precondition(lambda self: not self.oracle.frozen)
    @rule(bits=st.sampled_from([4, 8]))
    def quantize(self, bits: int) -> None:
        lincon.quantize(self.model, bits)
        for name, old in self.oracle.free.items():
            steps = self.model.get_buffer(f"{name}_steps")
            size = -(-len(old) // len(steps))
            step = steps.repeat_interleave(max(size, 64))[: len(old)]
            new = self.constraint.free[name].to(torch.float64) * step
            assert bool(((new - old).abs() <= step / 2 * (1 + 1e-6)).all())
            self.oracle.free[name] = new
        self.oracle.frozen = frozenset(self.oracle.free)
        seen["quantize"] += 1

    @precondition(lambda self: not self.oracle.frozen)
    @rule(seed=st.integers(0, 9))
    def project(self, seed: int) -> None:
        target = {n: p.detach() for n, p in plain(seed).named_parameters()}
        residual = self.constraint.project(target)
        missed = norm = 0.0
        for name, matrix in self.oracle.matrices.items():
            wanted = torch.cat([target[e.name].flatten() for e in self.oracle.ledgers[name]])
            difference = wanted - self.oracle.origins[name]
            best = torch.linalg.lstsq(matrix, difference, driver="gelsd").solution
            missed += float((matrix @ best - difference).square().sum())
            norm += float(wanted.square().sum())
            self.oracle.free[name] = self.constraint.free[name].detach().clone()
        assert residual <= (missed / norm) ** 0.5 * (1 + 1e-6) + 1e-6
        seen["project"] += 1

    @rule(seed=st.integers(0, 5))
    def merge_and_constrain_anew(self, seed: int) -> None:
        expected = self.model(inputs(2))
        lincon.merge(self.model)
        assert close(self.model(inputs(2)), expected)
        assert list(self.model.state_dict()) == list(plain(0).state_dict())
        for parameter in self.model.parameters():
            parameter.requires_grad_()
        self.base = copy.deepcopy(self.model)
        with lincon_warnings_off():  # zeros and constants may be left out
            try:
                lincon.constrain(self.model, self.generator, **{**self.arguments, "seed": seed})
            except lincon.LinconError:  # pruned to a constant
                self.model = plain(seed)
                self.base = copy.deepcopy(self.model)
                lincon.constrain(self.model, self.generator, **self.arguments)
        self.restart(self.model)
        seen["merge"] += 1


@contextlib.contextmanager
def lincon_warnings_off():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lincon.LinconWarning)
        yield


def close(left: Tensor, right: Tensor) -> bool:
    return torch.allclose(left, right, rtol=TOLERANCE, atol=TOLERANCE)


def run(count: int, steps: int = STEPS, **options: Any) -> Counter[str]:
    """Run programs, and count the steps taken; one that disagrees with the oracle is shrunk and raised."""
    seen.clear()
    chosen = settings(
        max_examples=count,
        stateful_step_count=steps,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        **options,
    )
    run_state_machine_as_test(Programs, settings=chosen)
    return Counter(seen)


def main() -> None:
    from benchmarks.results import keep

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1000)
    torch.set_num_threads(1)
    begun = time.perf_counter()
    taken = run(parser.parse_args().count, derandomize=False)
    seconds = time.perf_counter() - begun
    rows = [(step, f"{number:,}") for step, number in taken.most_common()]
    numbers = {"taken": dict(taken), "seconds": seconds}
    title = "Random programs, each step checked against the dense oracle"
    print(*(f"{number:>7} {step}" for step, number in rows), sep="\n")
    print(keep("soak", title, ("step", "taken"), rows, numbers))


if __name__ == "__main__":
    main()

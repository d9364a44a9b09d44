"""Steps of fine-tuning by peft's adapters and by lincon's, with about as many trained numbers.

    python -m benchmarks.adapters --budgets 10000 100000

A GPT of four layers of 128 reads 8 texts of 64 bytes. In every round each way takes one step (forward,
backward, Adam) and then, in other rounds, one forward without gradients. A cell is the time as a multiple
of full training's: the median of all rounds, and in brackets the quartiles. Needs the extra `interop`
(peft). --keep writes a folder under benchmarks/results.
"""

import argparse

import torch
from torch import nn

from benchmarks.adapting import METHODS, Places
from benchmarks.results import Table
from benchmarks.steps import Works, cell, medians, rounds
from lincon import LinconError
from lincon.recycling import keep_pages
from lincon.tasks.language.models import MODELS

WAYS = (
    *("full", "LoRA", "VeRA", "RandLora", "UniLora"),
    *("ring, LoRA factors", "ring, all weights", "ring, attention weights"),
    *("fastfood, all weights", "sparse, all weights"),
)
LAYERS, LENGTH = 4, 64


def works(way: str, budget: int) -> tuple[Works, int]:
    """A step and an inference of an adapted model, and how many numbers it trains."""
    torch.manual_seed(0)
    adapted = METHODS[way](MODELS["gpt-mini"](LENGTH), Places.of_gpt(LAYERS), budget, 0)
    model, texts = adapted.model, torch.randint(256, (8, LENGTH + 1))
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        logits = model(texts[:, :-1])
        nn.functional.cross_entropy(logits.flatten(0, 1), texts[:, 1:].flatten()).backward()
        optimizer.step()

    def infer() -> None:
        with torch.no_grad():
            model(texts[:, :-1])

    return {"step": step, "inference": infer}, adapted.trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budgets", type=int, nargs="+", default=[10_000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each kind of work")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    keep_pages()
    table = Table(["threads", "budget", "way", "trained", "step / full", "inference / full"])
    for threads in options.threads:
        torch.set_num_threads(threads)
        for budget in options.budgets:
            every, trained = {}, {}
            for way in WAYS:
                try:
                    every[way], trained[way] = works(way, budget)
                except LinconError as refusal:
                    print(refusal)
            times = rounds(every, options.seconds)
            full = times.pop("full")
            for way, own in times.items():
                cells = [cell(own[kind], full[kind]) for kind in full]
                table.add(
                    [threads, f"{budget:,}", way, f"{trained[way]:,}", *cells],
                    {
                        "threads": threads,
                        "budget": budget,
                        "way": way,
                        **medians(own, full, "full"),
                    },
                )
    if options.keep:
        table.keep("adapters", "Fine-tuning steps and inference, as multiples of full training's")


if __name__ == "__main__":
    main()

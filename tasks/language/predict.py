"""A text that a trained language model writes."""

from math import inf
from pathlib import Path

import torch

from lincon import LinconError
from lincon.tasks.experiments.training.record import reload
from lincon.tasks.language.models.gpt import GPT


def predict(
    prompt: str, folder: Path, count: int = 400, temperature: float = 1.0, seed: int = 0
) -> str:
    """Go on with a text.

    Args:
        prompt: the text so far; nothing stands for the beginning of a line.
        folder: of a training, with its model.
        count: bytes to write.
        temperature: by which logits are divided; near 0 the likeliest byte is always taken.
        seed: of the draws.

    Returns:
        What follows the prompt; bytes that are no UTF-8 are shown as U+FFFD.

    Raises:
        LinconError: a folder without a trained language model; a temperature that is not positive.
    """
    model, cell, _, _ = reload(folder)
    if not isinstance(model, GPT):
        raise LinconError(f"{folder} holds a model of {cell.task}, not of language.")
    if not 0 < temperature < inf:
        raise LinconError(f"A temperature of {temperature}: give a positive number.")
    return generate(model, prompt.encode() or b"\n", count, temperature, seed).decode(
        errors="replace"
    )


@torch.inference_mode()
def generate(model: GPT, prompt: bytes, count: int, temperature: float, seed: int) -> bytes:
    """``count`` bytes that follow a prompt, which has one byte at least; equal seeds draw equally."""
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    text = torch.tensor([list(prompt)])
    for _ in range(count):
        logits = model(text[:, -model.context :])[:, -1].double()
        shares = (logits / temperature).softmax(-1)
        text = torch.cat([text, torch.multinomial(shares, 1, generator=generator)], dim=1)
    return bytes(text[0, len(prompt) :].tolist())

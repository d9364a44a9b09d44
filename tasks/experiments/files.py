"""Names of the files in the folders of trainings and experiments."""

SAVED = "model.safetensors"
RECORD = "training.json"

RESULTS = "results.json"
FILES = "table.md", RESULTS, "picture.png", "picture.svg"
"""What every experiment writes."""

PREDICTIONS = "predictions.png"
"""What an experiment of a task that draws its predictions writes besides."""

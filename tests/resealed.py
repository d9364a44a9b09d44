"""Files whose description says something else, under a checksum that fits."""

import json

from safetensors import safe_open
from safetensors.torch import save_file

from lincon.files.header import seal


def resealed(path, change):
    """Have ``change(header, tensors)`` alter a model file, and seal it again, as another lincon could have."""
    with safe_open(path, "pt") as file:
        header, tensors = (
            json.loads(file.metadata()["lincon"]),
            {k: file.get_tensor(k) for k in file.keys()},  # noqa: SIM118
        )
    change(header, tensors)
    save_file(tensors, path, {"lincon": seal(header, tensors)})

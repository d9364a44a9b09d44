"""Files whose description says something else, under a checksum that fits."""

import json

from safetensors import safe_open
from safetensors.torch import save_file

from lincon.files.header import pack, seal, unpack


def resealed(path, change):
    """Have ``change(header, tensors)`` alter a model file, and seal it again, as another lincon could have."""
    with safe_open(path, "pt") as file:
        entry = file.metadata()["lincon"]
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    text = unpack(path, entry)
    header = json.loads(text)
    change(header, tensors)
    sealed = seal(header, tensors)
    save_file(tensors, path, {"lincon": sealed if text == entry else packed(sealed)})


def packed(text):
    """The text as the header of a file has it; as it is, if it has no format."""
    try:
        return pack(text)
    except (TypeError, KeyError):
        return text

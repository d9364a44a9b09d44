"""Files of arrays (.npz), read without unpickling."""

from pathlib import Path

import numpy as np

from lincon import LinconError
from lincon.errors import one_line
from lincon.tasks.experiments.data.expected import check_file
from lincon.tasks.experiments.data.remedies import remedy


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz file, by name; nothing is unpickled.

    Raises:
        LinconError: a file that is missing or damaged, or arrays of Python objects.
    """
    check_file(path, "give the path of a .npz file, as numpy.savez writes it.")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # numpy raises whatever the bytes lead it to
        with open(path, "rb") as damaged:
            start = damaged.read(512)
        advice = "write it again" if start.startswith(b"PK") else remedy(start)
        if "allow_pickle" in str(error) and start.startswith(b"PK"):
            advice = "save arrays of numbers, not of objects"
        raise LinconError(
            f"{path} cannot be read ({one_line(error)}): {advice}; .npz files come from "
            "numpy.savez."
        ) from None


def path_and_options(name: str) -> tuple[Path, str] | None:
    """The path of a .npz file and the options after its colon; None for any other name.

    >>> path_and_options("a/my.npz:shift=2"), path_and_options("mine:read")
    ((PosixPath('a/my.npz'), 'shift=2'), None)
    """
    path, ending, rest = name.partition(".npz")
    is_file = bool(ending) and (not rest or rest.startswith(":"))
    return (Path(path + ending), rest.removeprefix(":")) if is_file else None

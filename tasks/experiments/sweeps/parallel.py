"""Independent trainings side by side, each in a process of its own, by Ray."""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from math import ceil
from typing import Any

import torch

from lincon import LinconError
from lincon.recycling import keep_pages


def side_by_side(
    work: Callable[[Any], Any], items: Sequence[Any], count: int
) -> Iterator[tuple[Any, Any]]:
    """Each item with what ``work`` returns for it, as they are done, ``count`` at a time.

    On this machine, or on the cluster that RAY_ADDRESS names, which must see the same files. Each process has as many
    threads as this one. What ``work`` raises is raised here; what is still running is ended then.
    """
    if not items:
        return
    import ray
    from ray.exceptions import RayError, RayTaskError

    _connect(count)
    try:
        gpus = ray.cluster_resources().get("GPU", 0)
        share = gpus and 1 / ceil(count / gpus)  # as many to a GPU as must be, all alike
        remote = ray.remote(num_cpus=1, num_gpus=share, max_retries=0)(_alone)
        running: dict[Any, Any] = {}
        waiting = list(items)
        while waiting or running:
            while waiting and len(running) < count:
                item = waiting.pop(0)
                running[remote.remote(work, item, torch.get_num_threads())] = item
            (done, *_), _ = ray.wait(list(running))
            yield running.pop(done), ray.get(done)
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else error from None
    except RayError as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise LinconError(
            f"A process of --parallel {count} has ended ({said}): fewer take less memory."
        ) from error
    finally:
        ray.shutdown()


def _connect(count: int) -> None:
    import ray

    here: dict[str, Any] = (
        {} if "RAY_ADDRESS" in os.environ else {"num_cpus": count, "include_dashboard": False}
    )
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    ray.init(
        **here,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={
            "env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": str(torch.get_num_threads())}
        },
    )


def _alone(work: Callable[[Any], Any], item: Any, threads: int) -> Any:
    torch.set_num_threads(threads)
    keep_pages()
    return work(item)

"""Independent trainings side by side, each in a process of its own, by Ray."""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Any

import torch

from lincon import LinconError
from lincon.recycling import keep_pages
from lincon.tasks.experiments.extras import check_installed


def side_by_side(
    work: Callable[[Any], Any], items: Sequence[Any], count: int
) -> Iterator[tuple[Any, Any]]:
    """Each item with the result of ``work`` for it, in the order in which they are done.

    The work is done on this machine, or on the cluster that RAY_ADDRESS names, which must see the
    same files. Each process has as many threads as this one.

    Args:
        work: called with an item.
        items: of the work.
        count: how many are worked on at a time.

    Raises:
        Exception: whatever ``work`` raises; the others are then ended.
        LinconError: a process has ended.
    """
    if not items:
        return
    with _cluster(count) as ray:
        gpus = ray.cluster_resources().get("GPU", 0)
        # The fewest processes to a GPU with which all can run, equally many on each.
        share = gpus and 1 / ceil(count / gpus)
        remote = ray.remote(num_cpus=1, num_gpus=share, max_retries=0)(_in_process)
        waiting = list(items)
        running: dict[Any, Any] = {}
        while waiting or running:
            while waiting and len(running) < count:
                item = waiting.pop(0)
                running[remote.remote(work, item, torch.get_num_threads())] = item
            (done, *_), _ = ray.wait(list(running))
            yield running.pop(done), ray.get(done)


@contextmanager
def _cluster(count: int) -> Iterator[Any]:
    """The module `ray`, connected for ``count`` processes; its errors are turned into ours."""
    check_installed("ray")
    import ray
    from ray.exceptions import RayError, RayTaskError

    _connect(count)
    try:
        yield ray
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else error from None
    except RayError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LinconError(
            f"A process of --parallel {count} has ended ({reason}): fewer take less memory."
        ) from error
    finally:
        ray.shutdown()


def _connect(count: int) -> None:
    import ray

    local: dict[str, Any] = {"num_cpus": count, "include_dashboard": False}
    variables = {
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    ray.init(
        **({} if "RAY_ADDRESS" in os.environ else local),
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": variables},
    )


def _in_process(work: Callable[[Any], Any], item: Any, threads: int) -> Any:
    """Do the work in a process that Ray has started."""
    torch.set_num_threads(threads)
    keep_pages()
    return work(item)

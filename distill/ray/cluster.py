"""A connection to a Ray cluster, or a cluster of this machine alone for as long as it is needed."""

import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from distill.errors import BadInput
from distill.machine.cpu import usable_cpus

__all__ = ["Actors", "Cluster", "connected"]

log = logging.getLogger(__name__)
_QUIET = ("ray", "ray.data")


@dataclass(frozen=True)
class Actors:
    """The processes that hold a model, and where they run.

    :param n: how many; None is as many as the cluster holds
    :param cpus: of each, which are its threads
    :param gpus: of each; with any the model runs in torch on the first of them
    :param address: of a cluster ("auto", "ray://host:10001"); None is RAY_ADDRESS, else a cluster of this machine alone
    """

    n: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    address: str | None = None

    def count(self, held: Mapping[str, float]) -> int:
        """Return how many actors there are to be in a cluster with these resources.

        :raises BadInput: where not one of them fits

        >>> Actors(cpus=2).count({"CPU": 9.0}), Actors(cpus=1, gpus=1).count({"CPU": 9.0, "GPU": 2.0}), Actors(n=3).count({"CPU": 2})
        (4, 2, 3)
        """
        cpus, gpus = held.get("CPU", 0.0), held.get("GPU", 0.0)
        fitting = min(int(cpus // self.cpus), int(gpus // self.gpus) if self.gpus else int(cpus // self.cpus))
        if self.n is None and not fitting:
            raise BadInput(
                f"the cluster holds {cpus:g} CPUs and {gpus:g} GPUs, one actor takes {self.cpus:g} and {self.gpus:g}; "
                "set --actor-cpus or --actor-gpus, or --actors where the cluster grows"
            )
        if self.n is not None and self.n > fitting:
            log.warning(
                "%d actors are asked for, the cluster holds %d now; the others wait for it to grow", self.n, fitting
            )
        return self.n or fitting

    def options(self, ray: Any) -> dict[str, Any]:
        """Return what `map_batches` takes to run a class in these actors."""
        from ray.data import ActorPoolStrategy

        strategy = ActorPoolStrategy(size=self.count(ray.cluster_resources()))
        return {"compute": strategy, "num_cpus": self.cpus, "num_gpus": self.gpus or None}


@dataclass(frozen=True)
class Cluster:
    """A connected Ray: its module, and the options of actors there."""

    ray: Any
    options: Mapping[str, Any]


@contextmanager
def connected(actors: Actors) -> Iterator[Cluster]:
    """Connect to the cluster, or start one with the CPUs that this process may use; one that was there before stays.

    :raises BadInput: where Ray is not installed, or there is no cluster at the address
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage data leaves
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what goes wrong comes as an error besides
    import ray
    import ray.data

    is_ours = not ray.is_initialized()
    if is_ours:
        _start(ray, actors)
    try:
        with _settings(ray):
            yield Cluster(ray, actors.options(ray))
    finally:
        if is_ours:
            ray.shutdown()


@contextmanager
def _settings(ray: Any) -> Iterator[None]:
    """Let Ray Data show no progress of its own, and make a block of each value that it is given."""
    context = ray.data.DataContext.get_current()
    ours = {"enable_progress_bars": False, "print_on_execution_start": False, "target_max_block_size": 1}
    before = {name: getattr(context, name) for name in ours}
    levels = {name: logging.getLogger(name).level for name in _QUIET}
    try:
        for name, value in ours.items():
            setattr(context, name, value)
        for name in _QUIET:
            logging.getLogger(name).setLevel(logging.ERROR)
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _start(ray: Any, actors: Actors) -> None:
    address = actors.address or os.environ.get("RAY_ADDRESS") or "local"
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":  # as many CPUs as are asked for: no other machine will join
        n_cpus = max(usable_cpus(), math.ceil((actors.n or 0) * actors.cpus))
        ray.init(address="local", num_cpus=n_cpus, include_dashboard=False, **quiet)
        return
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise BadInput(f"no Ray cluster at {address}: {' '.join(str(error).split())[:300]}") from None

"""Connect to a Ray cluster, or start a temporary cluster on this machine."""

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
    """Settings of the actors, which are processes with a model.

    :param n: number of actors; None is as many as fit into the cluster
    :param cpus: CPUs of each actor, which are its threads
    :param gpus: GPUs of each actor; if it has any, the model runs in torch on the first of them
    :param address: address of a cluster ("auto", "ray://host:10001"); None is RAY_ADDRESS, else a cluster on this
        machine alone
    """

    n: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    address: str | None = None

    def count(self, held: Mapping[str, float]) -> int:
        """Return the number of actors for a cluster with these resources.

        :raises BadInput: if `n` is None and not a single actor fits

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
        """Return the arguments of `map_batches` that run a class in these actors."""
        from ray.data import ActorPoolStrategy

        strategy = ActorPoolStrategy(size=self.count(ray.cluster_resources()))
        return {"compute": strategy, "num_cpus": self.cpus, "num_gpus": self.gpus or None}


@dataclass(frozen=True)
class Cluster:
    """A connection to Ray: the module, and the arguments of `map_batches` for the actors."""

    ray: Any
    options: Mapping[str, Any]


@contextmanager
def connected(actors: Actors) -> Iterator[Cluster]:
    """Connect to the cluster, or start one with the CPUs that this process may use.

    An existing connection is kept afterwards.

    :raises BadInput: if Ray is not installed, or there is no cluster at the address
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # send no usage data
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # problems are raised as errors anyway
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
    """Switch off the progress bars and messages of Ray Data, and make each value a block of its own."""
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
    if address == "local":  # declare as many CPUs as the actors need, because no other machine will join
        n_cpus = max(usable_cpus(), math.ceil((actors.n or 0) * actors.cpus))
        ray.init(address="local", num_cpus=n_cpus, include_dashboard=False, **quiet)
        return
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise BadInput(f"no Ray cluster at {address}: {' '.join(str(error).split())[:300]}") from None

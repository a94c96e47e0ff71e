"""Compute embeddings, scores and signals of very many texts on several machines, with Ray Data.

    dataset.map_batches(EmbedActor, fn_constructor_args=[model], compute=ray.data.ActorPoolStrategy(size=8), num_cpus=1)

Ray distributes the work and restarts dead processes. This package adds the parts that are specific to the toolkit: how
texts are read, which rows are finished, and which files the results are written to. The modules import Ray only when
they need it, and most of them do not.
"""

from typing import TYPE_CHECKING

from distill._public import public

if TYPE_CHECKING:
    from distill.ray.actors import *
    from distill.ray.batches import *
    from distill.ray.cluster import *
    from distill.ray.jobs import *
    from distill.ray.reading import *
    from distill.ray.shards import *
    from distill.ray.storage import *

__getattr__ = public(__name__, "actors", "cluster", "batches", "jobs", "reading", "shards", "storage")

"""Past one machine: a model's embeddings, scores and signals of more texts than one machine reads, by Ray Data.

    dataset.map_batches(EmbedActor, fn_constructor_args=[model], compute=ray.data.ActorPoolStrategy(size=8), num_cpus=1)

Ray reads, schedules and starts what died again; here is what it cannot know: how a text is read, which rows are done, and which
files the result is. The modules import Ray when they need it, and most of them do not.
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

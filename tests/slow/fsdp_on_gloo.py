"""A stage whose weights FSDP shards over CPU processes: `accelerate launch … -m tests.slow.fsdp_on_gloo STAGE RECIPE`.

accelerate turns FSDP on for accelerators alone, though torch shards on gloo as well. Here the processes call themselves
GPUs before accelerate asks; their device stays the CPU.
"""

import runpy
import sys

from accelerate import PartialState
from accelerate.utils import DistributedType

if __name__ == "__main__":
    PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    stage = sys.argv.pop(1)
    runpy.run_module(f"recipes.{stage}", run_name="__main__")

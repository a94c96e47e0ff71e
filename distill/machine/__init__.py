"""What this machine can do: class of the CPU, threads, memory, forks, and the precision that follows.

It knows nothing of models or data.
"""

"""What can keep a distillation from working: checks of pairs, scores, signals and teachers, each with numbers.

A check returns findings; it trains nothing, writes nothing and refuses nothing. The caller decides what follows.
"""

"""Checks of pairs, scores, signals and teachers for what can make a distillation fail, each with numbers.

A check returns findings; it trains nothing, writes nothing and refuses nothing. The caller decides what follows.
"""

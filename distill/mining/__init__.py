"""Candidates for queries: found by a retriever, scored by a teacher, freed from false negatives and drawn in strata.

It trains nothing.
"""

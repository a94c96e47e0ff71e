"""Candidates for queries: found by a retriever, scored by a teacher, cleared of false negatives and drawn by strata.

Nothing here trains a model.
"""

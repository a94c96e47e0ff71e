"""Model folders of sentence-transformers: what is in them, building, loading and saving them, whole and without foreign code.

It neither trains nor serves.
"""

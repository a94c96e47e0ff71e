"""Read, build, load and save sentence-transformers model folders, completely and without foreign code.

This package neither trains nor serves models.
"""

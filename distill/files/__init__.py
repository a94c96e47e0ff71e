"""Read and write files safely: artefact cards, outputs that overwrite nothing, untrusted folders.

This package does not run models or read tables.
"""

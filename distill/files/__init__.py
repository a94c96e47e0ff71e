"""What is read from and written to disk: artefact cards, outputs that overwrite nothing, folders that nobody trusts.

It knows no model and no table.
"""

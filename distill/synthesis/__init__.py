"""Generate pairs with a language model, and check them.

No module here trains a model.
"""

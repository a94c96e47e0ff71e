"""The one training loop, what it learns from and the losses.

It does not know teachers from students.
"""

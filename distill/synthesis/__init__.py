"""Pairs written by a language model, and the checks that they pass.

It trains nothing.
"""

"""Describe and handle the machine: class of the CPU, threads, memory, forks, signals, and the resulting precision.

This package does not know models or data.
"""

"""Decisions about a run, without I/O: what to send, when to poll, and what a response means.

The operator in a worker and the trigger in the triggerer use the same code, so they always decide in the same way.
"""

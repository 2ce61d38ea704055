"""The life of a run without any I/O: what to send, when to ask, and what an answer means.

The operator in its worker and the trigger in the triggerer decide with the same code, so the two cannot drift apart.
"""

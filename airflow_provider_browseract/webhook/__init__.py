"""The callback that ends a wait: BrowserAct calls the API server, which resumes the deferred task itself.

A callback is only a hint. Anyone with its address can make the task read the run from the BrowserAct API a few times
more, after which further callbacks are ignored. Without callbacks, the trigger's polls end the wait.
"""

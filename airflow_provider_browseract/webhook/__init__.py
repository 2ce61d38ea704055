"""The callback that ends a wait: BrowserAct calls the API server, which resumes the deferred task itself.

A callback is only a hint. Anyone with its address can make the task read the run from the BrowserAct API a few times
more, after which further callbacks are ignored. Without callbacks, the trigger's polls end the wait.
"""

URL_PREFIX = "/browseract"
"""Prefix of the plugin's routes, below the path of ``[api] base_url``."""

CALLBACK_PATH = "/callback"
"""Path of the callback route, below :data:`URL_PREFIX`."""

OVER_PATH = "/run-is-over"
"""Path of the page that the link to a run's live view opens after the run is over, below :data:`URL_PREFIX`."""

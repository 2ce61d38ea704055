"""The callback that ends the wait: BrowserAct calls the API server, which resumes the deferred task itself.

A callback is a hint. Whoever knows its address can make the task ask the BrowserAct API once more, and nothing else;
without callbacks, the trigger's own questions end the wait.
"""

URL_PREFIX = "/browseract"
"""Where the plugin's routes begin, below the path of ``[api] base_url``."""

CALLBACK_PATH = "/callback"
"""Where the callback route begins, below :data:`URL_PREFIX`."""

OVER_PATH = "/run-is-over"
"""Page to which the link to a run's live view leads when there is none any more, below :data:`URL_PREFIX`."""

"""The paths of the plugin's routes. Every process of Airflow imports them with the plugin."""

URL_PREFIX = "/browseract"
"""Prefix of the plugin's routes, below the path of ``[api] base_url``."""

CALLBACK_PATH = "/callback"
"""Path of the callback route, below :data:`URL_PREFIX`."""

PANEL_PATH = "/panel"
"""Path of the panel, below :data:`URL_PREFIX`."""

PANEL = f"{URL_PREFIX}{PANEL_PATH}"
"""Path of the panel, below the path of ``[api] base_url``."""

"""The paths of the plugin's routes, and our operators. Every process of Airflow imports this module with the plugin."""

SENSOR = "TaskSensor"

OPERATORS = (
    "RunWorkflowOperator",
    "RunTemplateOperator",
    "RunBotOperator",
    "RunBotTemplateOperator",
    "@task.browseract",
    SENSOR,
)
"""Operators whose task instances have a run, as Airflow names them."""

URL_PREFIX = "/browseract"
"""Prefix of the plugin's routes, below the path of ``[api] base_url``."""

CALLBACK_PATH = "/callback"
"""Path of the callback route, below :data:`URL_PREFIX`."""

PANEL_PATH = "/panel"
"""Path of the panel, below :data:`URL_PREFIX`."""

PANEL = f"{URL_PREFIX}{PANEL_PATH}"
"""Path of the panel, below the path of ``[api] base_url``."""

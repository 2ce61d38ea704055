"""The task decorator ``@task.browseract``: a function returns the inputs of a run of a workflow or bot."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, task_decorator_factory

from airflow_provider_browseract.compat import call_with_context, set_during_execution
from airflow_provider_browseract.exceptions import InputError
from airflow_provider_browseract.operators.base import RunOperator
from airflow_provider_browseract.operators.browseract import RunBotOperator, RunWorkflowOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


TEMPLATE = re.compile(
    r"{{\s*(?:ds|ts|params|var|conn|ti|task_instance|dag|dag_run|run_id|macros|logical_date|data_interval|prev)\w*\b[^{}]*}}"
)
"""A template with a name that Airflow's context has."""


class _FunctionOperator(DecoratedOperator, RunOperator):
    """Call a function, and start a run with the returned value as its inputs."""

    custom_operator_name: str = "@task.browseract"
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **RunOperator.template_fields_renderers,
    }
    # Before the function is called, and again after a deferral, the UI cannot show the inputs.
    overwrite_rtif_after_execution: bool = True

    def __init__(self, **kwargs: Any) -> None:
        # Airflow infers multiple_outputs from the function's annotation, but the task returns the run's output.
        kwargs |= {self.inputs_argument: set_during_execution(), "multiple_outputs": False}
        super().__init__(**kwargs)

    def prepare(self, context: Context) -> None:
        """Call the function with its own arguments and with values of the context."""
        made = call_with_context(self.python_callable, self.op_args, {**context, **self.op_kwargs})
        if made is None:
            raise InputError("The function returned None. Return the inputs, or {} if there are none.")
        if not isinstance(made, Mapping | Sequence | None) or isinstance(made, str | bytes):
            raise InputError(f"The function returned a value of type {type(made).__name__}. Return a dict of inputs.")
        if found := TEMPLATE.search(str(made)):
            raise InputError(
                f"The function returned the template {found.group()[:100]}, but a returned value is not rendered. Take "
                "the value as an argument of the function, for example def f(ds=None)."
            )
        setattr(self, self.inputs_argument, made)


class BrowserActDecoratedOperator(_FunctionOperator, RunWorkflowOperator):
    """Call a function, and run a workflow with the returned value as ``input_parameters``.

    The function is called in each try, and again after a wait for a slot. The returned value is not rendered, so
    a template in it is an error. If the function returns another value in a later try, that try stops the run of the
    earlier try and starts a new one, as with every input that changes.

    :param python_callable: the function. It may take its own arguments and values of the context.
    :param op_args: positional arguments of the function.
    :param op_kwargs: keyword arguments of the function.
    :param kwargs: the arguments of :class:`~airflow_provider_browseract.operators.browseract.RunWorkflowOperator`,
        without ``input_parameters``.
    """

    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *RunWorkflowOperator.template_fields)


class BotDecoratedOperator(_FunctionOperator, RunBotOperator):
    """Call a function, and run a bot with the returned value as ``input``.

    See :class:`BrowserActDecoratedOperator`. The arguments are those of
    :class:`~airflow_provider_browseract.operators.browseract.RunBotOperator`, without ``input``.
    """

    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *RunBotOperator.template_fields)


def browseract_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Turn a function that returns the inputs of a run into a task that runs a workflow or a bot.

    :param python_callable: the function.
    :param kwargs: either ``workflow_id`` and the other arguments of
        :class:`~airflow_provider_browseract.operators.browseract.RunWorkflowOperator`, without ``input_parameters``; or
        ``bot_id`` and the other arguments of
        :class:`~airflow_provider_browseract.operators.browseract.RunBotOperator`, without ``input``.
    :raises InputError: there is neither or both of ``workflow_id`` and ``bot_id``.
    """
    if ("workflow_id" in kwargs) == ("bot_id" in kwargs):
        raise InputError(
            'Write @task.browseract(workflow_id="...") or @task.browseract(bot_id="..."), with one of the two.'
        )
    if given := [name for name in ("input_parameters", "input") if name in kwargs]:
        raise InputError(f"@task.browseract takes no {given[0]}, because the function returns the inputs. Remove it.")
    return task_decorator_factory(
        python_callable=python_callable,
        decorated_operator_class=BotDecoratedOperator if "bot_id" in kwargs else BrowserActDecoratedOperator,
        **kwargs,
    )

"""The methods of the hook for what only version 3 of the API has: bots, and their templates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_browseract.api import v3
from airflow_provider_browseract.hooks.base import ConnectedHook
from airflow_provider_browseract.runs.request import read_bot_run, read_bot_template_run

if TYPE_CHECKING:
    from airflow_provider_browseract.api.bots import Bot, BotTemplate
    from airflow_provider_browseract.api.models import BotType, CreatedTask, Task, TaskStatus


class BotHook(ConnectedHook):
    """Run and list bots. :class:`~airflow_provider_browseract.hooks.browseract.BrowserActHook` has these methods."""

    def run_bot(
        self,
        bot_id: str,
        input: Mapping[str, Any] | None = None,
        *,
        callback_url: str | None = None,
        status_change_callback_url: str | None = None,
    ) -> CreatedTask:
        """Start a run of a bot (``create-run``). Check all arguments before sending anything.

        The hook does not compare the input with the schema of the bot. BrowserAct refuses an input that does not match.

        :param bot_id: the bot to run.
        :param input: the input by name: any JSON values, as the bot's schema (:meth:`get_bot`) describes them.
        :param callback_url: public address that BrowserAct calls once, when the task ends.
        :param status_change_callback_url: public address that BrowserAct calls at each change of status.
        :returns: the id of the task. Runs of bots have no profiles.
        :raises RunStartUnknownError: as :meth:`run_task`.
        :raises ConcurrencyLimitError: as :meth:`run_task`.

        >>> created = hook.run_bot("82000518364027715", {"company_name": "Example Corp", "max_pages": 2})
        >>> print(hook.get_task_status(created.id, api_version="v3"))
        running
        """
        request = read_bot_run(
            bot_id,
            input,
            callback_url=callback_url,
            status_change_callback_url=status_change_callback_url,
            api_base_url=self.settings.client.base_url,
        )
        return self._start(request.call)

    def run_bot_template(
        self,
        template_id: str,
        input: Mapping[str, Any] | None = None,
        *,
        region: str | None = None,
        callback_url: str | None = None,
        status_change_callback_url: str | None = None,
    ) -> CreatedTask:
        """Start a run of an official template as a bot (``create-template-run``). Check all arguments first.

        :param template_id: the template to run.
        :param input: as in :meth:`run_bot`; :meth:`get_bot_template` returns the schema.
        :param region: code of the proxy region. Default: ``US``, the API's.
        :param callback_url: public address that BrowserAct calls once, when the task ends.
        :param status_change_callback_url: public address that BrowserAct calls at each change of status.
        :returns: the id of the task.
        :raises RunStartUnknownError: as :meth:`run_task`.
        :raises ConcurrencyLimitError: as :meth:`run_task`.

        >>> created = hook.run_bot_template("52000417936205143", {"keyword": "laptops"}, region="DE")
        >>> print(hook.get_task_status(created.id, api_version="v3"))
        running
        """
        request = read_bot_template_run(
            template_id,
            input,
            region=region,
            callback_url=callback_url,
            status_change_callback_url=status_change_callback_url,
            api_base_url=self.settings.client.base_url,
        )
        return self._start(request.call)

    def iter_bot_tasks(
        self,
        *,
        bot_id: str | None = None,
        bot_name: str | None = None,
        status: TaskStatus | str | None = None,
        created_at_from: datetime | None = None,
        created_at_to: datetime | None = None,
    ) -> Iterator[Task]:
        """Iterate over the runs of bots and their templates that match (``page-runs``); pages are read when needed.

        :param bot_id: only runs of this bot. Runs of templates have no ``bot_id``.
        :param bot_name: only runs of bots whose name contains this.
        :param status: only runs with this status. Version 3 of the API has no ``unknown``.
        :param created_at_from: only runs created at this time or later. It needs a time zone.
        :param created_at_to: only runs created at this time or earlier. It needs a time zone.
        :returns: the runs, without output, steps and downloads, which only :meth:`get_task` returns. Their order is not
            documented.

        >>> [(task.bot_name, task.input) for task in hook.iter_bot_tasks(status="finished")]
        [('Find a contact', {'company_name': 'Example Corp'})]
        """
        call = v3.page_runs(
            bot_id=bot_id,
            bot_name=bot_name,
            status=status,
            created_at_from=created_at_from,
            created_at_to=created_at_to,
        )
        return self.client.iter_items(call)

    def iter_bots(self, *, bot_type: BotType | str | None = None, keyword: str | None = None) -> Iterator[Bot]:
        """Iterate over the bots of the account that can run (``page-bots``); each page is read when it is needed.

        :param bot_type: only bots that were built like this: ``"workflow"`` or ``"agent"``.
        :param keyword: only bots whose name contains this. Case does not matter.
        :returns: the bots, without their schemas, which only :meth:`get_bot` returns.

        >>> [(bot.id, bot.name) for bot in hook.iter_bots(bot_type="agent", keyword="contact")]
        [('82000518364027715', 'Find a contact')]
        """
        return self.client.iter_items(v3.page_bots(bot_type=bot_type, keyword=keyword))

    def get_bot(self, bot_id: str) -> Bot:
        """Read a bot, with the JSON Schemas of its input and its output (``query-bot``).

        :param bot_id: the bot to read.
        :returns: the bot. Its ``input_schema`` is ``None`` if it is not published.
        :raises NotFoundError: there is no such bot.

        >>> list(hook.get_bot("82000518364027715").input_schema["properties"])
        ['company_name', 'max_pages']
        """
        return self.client.send(v3.query_bot(bot_id))

    def iter_bot_templates(self, keyword: str | None = None) -> Iterator[BotTemplate]:
        """Iterate over the official templates that run as bots (``page-templates``); pages are read when needed.

        :param keyword: only templates whose name or description contains this.
        :returns: the templates, without their schemas, which only :meth:`get_bot_template` returns.

        >>> [(template.id, template.name) for template in hook.iter_bot_templates("product search")]
        [('52000417936205143', 'Product search')]
        """
        return self.client.iter_items(v3.page_templates(keyword=keyword))

    def get_bot_template(self, template_id: str) -> BotTemplate:
        """Read an official template, with the JSON Schema of its input (``query-template``).

        :param template_id: the template to read.
        :returns: the template.
        :raises NotFoundError: there is no such template.

        >>> hook.get_bot_template("52000417936205143").input_schema["required"]
        ['keyword']
        """
        return self.client.send(v3.query_template(template_id))

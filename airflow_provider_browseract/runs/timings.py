"""How long things take and how long they may take, in seconds, in one place.

Other modules read these as attributes of this module, so that a test can shorten any of them here.
"""

from __future__ import annotations

DEFAULT_POLL_INTERVAL = 10.0
"""Between two polls of a run, if only they can find its end."""

SAFETY_POLL_INTERVAL = 120.0
"""Between two polls of a run whose end a callback reports. The polls are for a callback that gets lost."""

FIRST_POLL_JITTER = 2.0
"""By which the first poll is spread at most, so that runs that started together are not polled together."""

DEFAULT_TIMEOUT = 7 * 3600.0
"""That a run may take: the limit of the BrowserAct API itself."""

CORE_RACE_GRACE = 8.0
"""After a deferral, before which nothing may resume the task instance, neither a poll nor a callback.

The scheduler can learn up to 5 seconds late that the process which deferred has ended. If the task instance was queued
again by then, Airflow mistakes the late news for a crash and fails the task instance.
"""

CALLBACK_GRACE = 2.0
"""That the first poll waits longer if a callback is expected.

A callback that comes within :data:`CORE_RACE_GRACE` is refused, so the first poll must come after it for certain, also
if the clocks of worker, API server and triggerer differ a little.
"""

POLL_PATIENCE = 600.0
"""For which polls must have failed without a break before the wait is given up.

A firewall, a maintenance page or a key that is being rotated fails each poll at once, so a number of polls alone would
end the wait within a minute.
"""

RESUME_GRACE = 30.0
"""For which BrowserAct may still show a run as paused after it was resumed."""

TIMEOUT_BACKSTOP = 600.0
"""By which Airflow's own timeout of a deferral is later than the deadline, which the trigger keeps itself.

Airflow's timeout is for the case that no trigger runs: it can neither stop the run nor report what became of it. A
result that cannot be read is read again for as long.
"""

LATE_OUTPUT_PAUSES = (2.0, 5.0, 13.0)
"""Before each further read of a finished run without output."""

LATE_OUTPUT_LIMIT = 60.0
"""After the end of a run, from which on its output is not late any more, but missing."""

CLOCK_SKEW = 60.0
"""By which BrowserAct's clock and ours may differ when a run is looked up by the time of its start."""

CLOCK_RESOLUTION = 2.0
"""By which a run may seem older than its start, because BrowserAct may give times in whole seconds."""

LISTING_DELAY = 20.0
"""That a run whose start got no response may take to appear in the list of tasks."""

ORPHAN_LOOK_PAUSE = 5.0
"""Between two looks for a run that may have been started."""

RECHECK_PAUSES = (5.0, 5.0, 5.0)
"""After which a start is tried again if its API key was refused, or if Airflow did not find its connection.

A key is rotated in two places, one after the other. And Airflow reports a connection as missing also if its database
does not respond.
"""

FIRST_SLOT_PAUSE = 10.0
"""After the first refusal, before which a start is not tried again. A deferral lasts that long in any case."""

LONGEST_SLOT_PAUSE = 60.0
"""That the pause between two starts grows to, from refusal to refusal."""

LONGEST_SLOT_WAIT = 300.0
"""After which a start is tried again although the count shows no free slot: the count may not show everything."""

SLOT_COUNT_LIFETIME = 2.0
"""For which one count of runs serves all task instances that wait for a slot in the same process."""

START_DELAY = 10.0
"""For which a task instance that was woken is counted as a run, until the count itself shows its run."""

KILL_LIMIT = 4.0
"""Within which a killed task must have stopped its run. Airflow ends the process after 5."""

ON_KILL_LIMIT = 25.0
"""For which a killed trigger is kept to stop its run, a little less than Airflow itself allows."""

ON_KILL_CALL_LIMIT = 7.5
"""Of :data:`ON_KILL_LIMIT` for each of two calls, which read the status and stop the run. Airflow is asked as well."""

ANSWER_POLL_INTERVAL = 5.0
"""Between two looks for the answer to a Required Action, and between two tries to read Airflow's state store."""

AIRFLOW_CLOCK_SKEW = 5.0
"""By which the clocks of two machines of Airflow may differ."""

EVENT_STORE_GRACE = 3.0
"""Within which Airflow has usually stored an event; it collects those of all triggers every second or so."""

SHORTEST_WATCH_INTERVAL = 10.0
"""At least between two polls of a watcher, and so between its events.

Airflow notes that a DAG is due with its asset's first event, and gives the DAG run the events up to then. One that
comes before the scheduler has made the DAG run, which takes seconds, belongs to none before yet another event comes.
"""

STORE_RETRY_PAUSE = 2.0
"""Before a failed access to object storage is tried again."""

FILES_LOOK_PAUSE = 5.0
"""Between two reads of a run whose files BrowserAct is still preparing."""

"""All durations and time limits, in seconds.

Other modules read these values as attributes of this module, so that tests can shorten them here. Defaults of arguments
and fields are read once, at import.
"""

from __future__ import annotations

DEFAULT_POLL_INTERVAL = 10.0
"""Seconds between two polls of a run without callbacks, and between the first polls of a run with callbacks."""

SAFETY_POLL_INTERVAL = 120.0
"""Maximum seconds between two polls of a run with callbacks. The polls find the end of the run if its callback is
lost."""

FIRST_POLL_JITTER = 2.0
"""Maximum seconds by which the first poll is delayed, at random. So runs that started together are polled apart."""

DEFAULT_TIMEOUT = 7 * 3600.0
"""Seconds that a run may take. This is also the limit of the BrowserAct API."""

CORE_RACE_GRACE = 8.0
"""Seconds after a deferral during which neither a poll nor a callback may resume the task instance.

The scheduler may learn up to 5 seconds late that the process that deferred has ended. If the task instance is queued
again by then, Airflow mistakes this for a crash and fails the task instance.
"""

CALLBACK_GRACE = 2.0
"""Seconds that are added to :data:`CORE_RACE_GRACE` for the first poll if a callback is expected.

A callback that arrives within :data:`CORE_RACE_GRACE` is refused, so the first poll must come later, even if the clocks
of worker, API server and triggerer differ a little.
"""

CALLBACK_DELAY = 5.0
"""Seconds after the end of a run during which its callback may still be on its way. If a poll resumes the task instance
so soon, the callback does not count as missed."""

LONGEST_CALLBACK_WAIT = 25.0
"""Seconds that a callback may wait to be looked up. After that it gets 503, and BrowserAct sends it again.

BrowserAct waits 30 seconds for a response. Without one, it does not send the callback again.
"""

ROUTE_LOAD_PAUSE = 60.0
"""Seconds after which an API server that could not load the callback route tries again."""

CONNECTION_TEST_LIMIT = 30.0
"""Seconds that the test of a connection may take to reach BrowserAct. It holds a thread of the API server."""

POLL_PATIENCE = 600.0
"""Seconds during which all polls must fail before the wait is given up.

A firewall, a maintenance page or a key that is being rotated fails each poll at once, so a limit for the number of
polls alone would end the wait within a minute.
"""

RESUME_GRACE = 30.0
"""Seconds during which BrowserAct may still show a run as paused after it was resumed."""

TIMEOUT_BACKSTOP = 600.0
"""Seconds by which Airflow's own timeout of a deferral is later than the deadline, which the trigger checks itself.

Airflow's timeout applies if no trigger is running. It can neither stop the run nor report its result. A result that
cannot be read is also read again for this long.
"""

LATE_OUTPUT_PAUSES = (2.0, 5.0, 13.0)
"""Seconds to wait before each further read of a finished run without output."""

LATE_OUTPUT_LIMIT = 60.0
"""Seconds after the end of a run during which its output may be late. After that, the run counts as without output."""

CLOCK_SKEW = 60.0
"""Seconds by which BrowserAct's clock and ours may differ when a run is looked up by the time of its start."""

CLOCK_RESOLUTION = 2.0
"""Seconds by which a run may seem older than its start, because BrowserAct may return times in whole seconds."""

LISTING_DELAY = 20.0
"""Seconds that a run may take to appear in the list of tasks after the response to its start was lost."""

LATE_START_DELAY = 60.0
"""The same if a gateway has responded instead of BrowserAct, which may then still carry out the start."""

LOOK_UP_LIMIT = 300.0
"""Seconds that looking for a run may take, from the moment at which the run must be in the list."""

CLAIM_PAUSE = 5.0
"""Seconds between the claim of an orphan and its adoption, in which mapped siblings can store their claims."""

ORPHAN_LIST_PAUSE = 5.0
"""Seconds between two requests for the list of tasks while looking for an orphan."""

RECHECK_PAUSES = (5.0, 5.0, 5.0)
"""Seconds after which a start is tried again if its API key was refused, or if Airflow did not find its connection.

A key is rotated in two places, one after the other. And Airflow also reports a connection as missing if its database
does not respond.
"""

FIRST_SLOT_PAUSE = 10.0
"""Seconds to wait before a start is tried again that was refused although there seemed to be a free slot. A task that
waits for a slot in its worker also begins with this pause."""

LONGEST_SLOT_PAUSE = 60.0
"""Maximum seconds between two starts. The pause grows with each refusal."""

LONGEST_RETRY_AFTER = 300.0
"""Maximum seconds after which a start is tried again, whatever ``Retry-After`` requires."""

SECOND_CHECK_DELAY = 2.0
"""Seconds between a start near the limit of a budget and the second check of the budget. BrowserAct should list the
runs of other starts at the same moment by then."""

SLOT_COUNT_INTERVAL = 3.0
"""Seconds between two counts of the active runs, while a task instance waits for a slot. One count serves all task
instances with the same API key that wait in the same triggerer."""

HANDED_OVER_COUNT_INTERVAL = 5.0
"""Seconds between two such counts if callbacks are set up. A slot that is free in two counts in a row was not handed
over: its callback is lost, or something else has started the run."""

SLOT_COUNT_LIMIT = 10.0
"""Seconds that each request of a count may take, so that other waits of the queue can end on time."""

SLOT_COUNT_PAUSE = 1.0
"""Minimum seconds between two counts, even if runs end."""

SLOT_PROBE_PAUSE = 20.0
"""Minimum seconds between two probes. A probe is a start that is tried although no slot seems to be free, because the
plan may have more slots now, or the count may be wrong. Without a count, the pause begins with this and grows."""

LONGEST_SLOT_PROBE_PAUSE = 300.0
"""Maximum seconds between two probes. Only many starts from the queue allow a probe earlier."""

PLACE_DELAY = 2.0
"""Seconds after which a task instance shows its place in the queue. Those refused together have joined by then."""

START_DELAY = 30.0
"""Maximum seconds for which a woken task instance holds a slot if no count shows its run."""

FOLLOW_DELAY = 7.0
"""Seconds for which a woken task instance holds a slot against other DAGs if no count shows its run. Its DAG may be
paused, or its pool full. The time grows if starts take longer."""

KILL_LIMIT = 4.0
"""Seconds within which a killed task must have decided about its run, and stopped it. Airflow ends the process after 5,
if Airflow itself has killed the task."""

KILL_PATIENCE = 30.0
"""Seconds for which a killed task keeps asking Airflow for the reason if Airflow does not respond and the process was
not ended in the meantime."""

KILL_ASK_PAUSE = 0.2
"""Seconds to wait before a failed request for the reason is repeated."""

HANDLER_LIMIT = 1.0
"""Seconds for which the signal handler waits for the decision about a run that this process no longer waits for. The
interrupted code may hold a lock that the decision needs, so it must continue soon."""

ON_KILL_LIMIT = 25.0
"""Seconds for which a killed trigger tries to stop its run, a little less than Airflow allows."""

NEXT_TRY_LIMIT = 300.0
"""Seconds for which a killed trigger waits to see which run the next try of its task instance has (Airflow 3.4)."""

ON_KILL_CALL_LIMIT = 7.5
"""Seconds of :data:`ON_KILL_LIMIT` for each of the two calls that read the status and stop the run.

The rest is for requests to Airflow.
"""

ANSWER_POLL_INTERVAL = 5.0
"""Seconds between two requests for the answer to a Required Action, and between two reads of Airflow's state store."""

AIRFLOW_CLOCK_SKEW = 5.0
"""Seconds by which the clocks of two machines of Airflow may differ."""

EVENT_STORE_GRACE = 3.0
"""Seconds within which Airflow has usually stored an event. It collects new events about once a second."""

SHORTEST_WATCH_INTERVAL = 10.0
"""Minimum seconds between two polls of a watcher, and therefore between its events.

The first event of an asset makes a DAG due, and the DAG run gets all events up to then. The scheduler needs seconds to
create the DAG run. An event that arrives before that belongs to no DAG run until another event arrives.
"""

FILE_TIMEOUT = 1800.0
"""Seconds that a file may take, with all tries and redirects. A host that sends a byte now and then would otherwise
block the worker forever."""

STORE_RETRY_PAUSE = 2.0
"""Seconds to wait before a failed access to object storage is tried again."""

FILES_READ_PAUSE = 5.0
"""Seconds between two reads of a run whose files BrowserAct is still preparing."""

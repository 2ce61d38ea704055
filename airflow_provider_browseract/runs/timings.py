"""All durations and time limits, in seconds.

Other modules read these values as attributes of this module, so that tests can shorten them here. Defaults of arguments
and fields are read once, at import.
"""

from __future__ import annotations

# Between two polls of a run without callbacks, and between the first polls of a run with callbacks.
DEFAULT_POLL_INTERVAL = 10.0
# At most between two polls of a run with callbacks. The polls find its end if the callback is lost.
SAFETY_POLL_INTERVAL = 120.0
# The first poll is delayed by up to this, at random, so that runs that started together are polled apart.
FIRST_POLL_JITTER = 2.0
# How long a run may take. This is also the limit of the BrowserAct API.
DEFAULT_TIMEOUT = 7 * 3600.0
# After a deferral, neither a poll nor a callback may resume the task instance. Its process lives for up to
# TRIGGER_BEGINS and two RESPONSE_LIMITs, and the scheduler may learn up to 5 seconds late that it has ended. If the
# task instance is queued again by then, Airflow fails it as crashed.
CORE_RACE_GRACE = 10.0
# Before a task instance joins the queue for slots. The same as CORE_RACE_GRACE, but its process ends at once.
QUEUE_RACE_GRACE = 8.0
# Added to CORE_RACE_GRACE for the first poll if a callback is expected: a callback within that time is refused, and the
# clocks of worker, API server and triggerer may differ a little.
CALLBACK_GRACE = 2.0
# A callback that was not looked up by then gets 503, and BrowserAct sends it again. Without a response, it would not.
LONGEST_CALLBACK_WAIT = 25.0
# Until an API server that could not load the callback route tries again.
ROUTE_LOAD_PAUSE = 60.0
# For the test of a connection to reach BrowserAct. It holds a thread of the API server.
CONNECTION_TEST_LIMIT = 30.0
# All polls must fail for so long before the wait is given up: a firewall, or a key that is being rotated, fails each at
# once.
POLL_PATIENCE = 600.0
# BrowserAct may still show a run as paused after it was resumed.
RESUME_GRACE = 30.0
# By this, Airflow's own timeout of a deferral is later than the deadline, which the trigger checks itself. A result
# that cannot be read is also read again for so long.
TIMEOUT_BACKSTOP = 600.0
# Before each further read of a finished run that has no output, or whose output cannot be read.
READ_AGAIN_PAUSES = (2.0, 5.0, 13.0)
# After the end of a run, its output may be late. Then the run counts as without output.
LATE_OUTPUT_LIMIT = 60.0
# BrowserAct's clock and ours may differ by this when a run is looked up by the time of its start.
CLOCK_SKEW = 60.0
# A run may seem older than its start by this, because BrowserAct may return times in whole seconds.
CLOCK_RESOLUTION = 2.0
# After the end of a start whose response was lost, the list of tasks is read. Until the second read, BrowserAct may
# still carry out the start, and the run may be missing in the list.
LIST_READS = (60.0, 120.0)
# The entry of a start is stored again if it is older right before the request.
ENTRY_FRESH = 5.0
# Before a start that was refused although there seemed to be a free slot; also the first pause in a worker.
FIRST_SLOT_PAUSE = 10.0
# At most between two starts. The pause grows with each refusal.
LONGEST_SLOT_PAUSE = 60.0
# At most before a start is tried again, whatever Retry-After requires.
LONGEST_RETRY_AFTER = 300.0
# Between two counts of the active runs, which serve all task instances with the same key in the same triggerer.
SLOT_COUNT_INTERVAL = 3.5
# Before the first count of a queue: those that were refused together have joined by then.
SLOT_COUNT_PAUSE = 1.0
# For each request of a count, so that other waits of the queue can end on time.
SLOT_COUNT_LIMIT = 10.0
# Between two starts while the active runs cannot be counted: two intervals.
BLIND_START_PAUSE = 7.0
# Between two probes: starts that are tried although no slot seems to be free. Each one that is refused doubles it.
SLOT_PROBE_PAUSE = 60.0
# At most between two probes.
LONGEST_SLOT_PROBE_PAUSE = 300.0
# Until the log of a task instance has its place in the queue. Those refused together have joined by then.
PLACE_DELAY = 2.0
# A woken task instance holds a slot for this if no count shows its run. It grows if starts take longer.
START_DELAY = 12.0
# At most for this. A start that takes longer had to wait, or is looked up.
LONGEST_START = 90.0
# A woken task instance that has not started by then is forgotten, and its DAG has its place in the queue again.
START_FORGOTTEN = 100.0
# A killed task must have decided about its run, and stopped it. Airflow may end the process after 5 seconds.
KILL_LIMIT = 4.0
# A killed task keeps asking Airflow for the reason if Airflow does not respond. Its request may have to wait for one of
# Airflow's own, which is tried for up to 40 seconds.
KILL_PATIENCE = 60.0
# Before a failed request for the reason is repeated.
KILL_ASK_PAUSE = 0.2
# The signal handler waits for the decision about a run that this process no longer waits for. The interrupted code may
# hold a lock that the decision needs, so it must continue soon.
HANDLER_LIMIT = 1.0
# After a deferral, its trigger has begun by then. If a person ends the task earlier, only the process that has deferred
# can stop the run.
TRIGGER_BEGINS = 2.0
# That process waits so long for each response of Airflow. A response that comes later than HAND_OVER_LIMIT after the
# deferral does not count.
RESPONSE_LIMIT = 1.0
HAND_OVER_LIMIT = 5.0
# A killed trigger tries to stop its run, a little less than Airflow allows.
ON_KILL_LIMIT = 25.0
# A killed trigger waits to see which run the next try of its task instance has (Airflow 3.4).
NEXT_TRY_LIMIT = 300.0
# Of ON_KILL_LIMIT, for each of the two calls that read the status and stop the run. The rest is for Airflow.
ON_KILL_CALL_LIMIT = 7.5
# Between two requests for the answer to a Required Action, and between two reads of Airflow's state store.
ANSWER_POLL_INTERVAL = 5.0
# Airflow has usually stored an event by then. It collects new events about once a second.
EVENT_STORE_GRACE = 3.0
# At least between two polls of a watcher, and so between its events. The scheduler needs seconds to create a DAG run,
# and an event that arrives before that belongs to no DAG run until another event arrives.
SHORTEST_WATCH_INTERVAL = 10.0
# For all files that are ready together, with all tries and redirects. Hosts that send a byte now and then would
# otherwise block the worker.
FILES_LIMIT = 1800.0
# At most before a file is fetched again for the first time. Errors of the store are not tried again.
STORE_RETRY_PAUSE = 2.0
# Between two reads of a run whose files BrowserAct is still preparing.
FILES_READ_PAUSE = 5.0

"""Known differences between the emulator and BrowserAct, and decisions about undocumented behaviour."""

from __future__ import annotations

STRICTER = (
    "An unknown profile_id is refused with 99001. So is the profile_id of a run without save_browser_data.",
    "A profile is saved when its run finishes, not when the run fails or is canceled.",
    "An empty value counts as missing for a required input.",
    "Fields, query parameters and input names that the API does not have are refused with 99001.",
    'workflow_id has to be a string; some examples send a number. null and "" are refused where a value is expected.',
    "The Content-Type of a body has to be application/json.",
    "Times have whole seconds, even when a list compares them.",
    "The run of a template belongs to a workflow that no list names, so no filter by the template's id finds it.",
    "Each version of the API knows only the tasks that it has started, unless the emulator has shared_runs.",
    "A bot's input has to conform to its schema. A missing name is refused with 10142, or 10143 for agent-built bots, "
    "anything else with 99001.",
    "Bots keep no logins from run to run, as they may on BrowserAct with a Standard Browser.",
    "API v3 lists the oldest first and leaves out fields that do not apply. The response to resume-run says paused.",
    "The response to a path that does not exist has no error envelope of BrowserAct.",
    "The response to a wrong API key is HTTP 401. The vendor's document declares 200, 400 and 500 only.",
)
"""Differences because of which a DAG that works on BrowserAct may fail here."""

LENIENT = (
    "Callback addresses may be private, unless the emulator is set to refuse them (--public-callbacks-only).",
    "Runs take seconds. BrowserAct needs seconds to minutes.",
    "In a test, runs start at once, and output, files and list entries appear at once, unless settings delay them.",
    "Runs may take any time unless the emulator has max_duration. How BrowserAct ends a run after 7 hours is unknown.",
    "Any number of runs of a workflow may be active, unless it has one_at_a_time (a Standard Browser), as LOG_IN and "
    "ORDERS.",
    "Each step costs 5 credits (credits_per_step) when it begins, or at the end with credits_at_end. BrowserAct also "
    "charges for proxies; the emulator does so only with extra_credits.",
    "get-task returns at most the newest 10,000 steps.",
    "A bot's input is not checked if the schema cannot be used, and its output is never checked.",
    "Requests have no limit unless the emulator has rate_limit. Whether BrowserAct has one is not documented.",
    "Bodies have no limit.",
    "Whether a paused run counts for the plan's concurrency is not documented. Here it counts.",
    "How BrowserAct refuses a busy Standard Browser and an account without credits is not documented. The "
    "codes and messages here are invented.",
    "BrowserAct documents no list of failure codes. Those for refused logins and inputs and long runs are invented.",
)
"""Differences because of which a DAG that works here may fail on BrowserAct."""

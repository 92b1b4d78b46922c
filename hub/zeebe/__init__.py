"""Talking to Zeebe, and the only place that imports pyzeebe.

pyzeebe gives the channel and the generated stubs; everything above them is ours, because what it does with a lost
completion, a full engine or a long outage is not good enough for money (docs/decisions/worker-runtime.md).

    channel.py    how the connection is opened
    calls.py      how one request is tried, and tried again
    refusals.py   the engine's certain "no", as exceptions
    client.py     `open_engine`: publish messages, deploy, ask for health
    operate.py    what an operator's repair needs: retries, incidents, variables, modification, cancellation
    outcomes.py   what a handler's result or exception means to the engine; pure
    slots.py      how many jobs run at once; pure
    worker.py     `Worker`: takes jobs, runs handlers, reports
"""

"""The words everybody here uses, and the engine room.

The plain modules (money, transfer, errors, jobs, messages, connector) hold the vocabulary: no input, no output,
nothing of ours imported but each other. `hub.zeebe` talks to the engine and is the only importer of pyzeebe;
`hub.stack` runs the local servers; `hub.cli` with `hub.commands` is the composition root, which knows everybody.
"""

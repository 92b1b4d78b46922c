"""The local stack: real servers on one machine, started and watched by one launcher.

`payhub up` runs Zeebe, Kafka, Elasticsearch and PostgreSQL here: no containers, no system Java, no system database.

* `packages` pins every artifact by SHA-256 and keeps the unpacked programs in a cache that all checkouts share;
  `warm_up` adds what makes the Java servers start in half the time;
* `servers` says how each server is configured, started and asked for its health;
* `supervision` keeps one part alive; `launcher` keeps all of them, in order, and leaves no process behind;
* `control` is the socket through which `payhub status`, `payhub down`, tests and the demo talk to a running launcher;
* `state` is `stack.json`: the ports, addresses and generated secrets of one data folder, and the `PAYHUB_*`
  environment made from them;
* `commands` adds `up`, `down`, `status` and `doctor` to a command line.

The stack knows nothing of payments. What the hub itself runs on it comes in through `plan.Hub`.
`python -m hub.stack up` runs the servers alone.
"""

"""Speed, always as a ratio of ours to the limit on the same machine, alternating in one run. Never a timed test."""

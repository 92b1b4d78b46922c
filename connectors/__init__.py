"""Who we talk to: one folder per party, stateless and independent of each other; `registry` lists them."""

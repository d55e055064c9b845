"""Where inputs come from, one module a kind of source: what it has now, for the lock, and its bytes by digest."""

"""Real servers as subprocesses, real signals, observed from outside."""

"""Who uses it: client processes, sessions, generators."""

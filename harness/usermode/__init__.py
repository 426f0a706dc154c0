"""Runs a command in a user-mode Linux kernel: netem and everything else that this machine's own kernel may lack."""

"""The images of the Docker testbed, made without a registry: the same inputs give the same image id."""

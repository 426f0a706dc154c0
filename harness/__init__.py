"""Break a ZooKeeper ensemble on purpose, and prove which of its promises held."""

__version__ = "0.1.0"

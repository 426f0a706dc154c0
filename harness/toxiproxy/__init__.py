"""Toxiproxy, a TCP proxy that delays and cuts: where the program comes from, its API, its processes on hosts."""

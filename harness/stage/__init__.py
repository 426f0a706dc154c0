"""Stages: what a run is performed on, one module for each kind of testbed."""

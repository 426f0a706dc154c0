"""What happened: records and the run folder."""

"""Was it right: one module per guarantee, pure functions of a run folder."""

"""Makes a topology real."""

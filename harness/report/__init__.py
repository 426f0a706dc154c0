"""How to tell it."""

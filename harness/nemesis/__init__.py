"""What can break, and when."""

"""What may be said, to whom: pure functions, no input or output."""

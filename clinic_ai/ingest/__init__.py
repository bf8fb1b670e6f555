"""Outside files become closed studies here; this room knows no model."""

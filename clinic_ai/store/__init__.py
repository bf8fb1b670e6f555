"""What survives a power cut: the database (the only room with SQL), stored originals, the audit."""

"""Signed heads of the audit: what the log was at a time, kept outside the database and signed by this home."""

"""What makes a copy of an image that does not tell whom it shows (PS3.15 Annex E); for the deidentifier child only."""

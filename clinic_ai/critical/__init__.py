"""Critical findings: what the clinic's list says of a result, and who is told, again and again, until one reacts."""

"""Each file is the main of one child process; nobody imports it."""

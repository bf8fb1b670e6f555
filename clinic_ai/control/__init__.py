"""The one door for people: HTTP on Unix sockets, and the typed client for it."""

"""Children that misbehave, each in its own way; started by the tests through the real ``Child``."""

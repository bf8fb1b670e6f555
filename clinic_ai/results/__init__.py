"""An analysis becomes things people and systems read."""

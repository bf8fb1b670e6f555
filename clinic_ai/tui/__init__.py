"""The terminal screens; they draw what the client gives, without SQL or pydicom."""

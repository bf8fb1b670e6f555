"""What pydicom raises on bytes that are no data set."""

from __future__ import annotations

import struct

from pydicom.errors import BytesLengthException, InvalidDicomError

# There is no common base, and the list grew with fuzzing.
UNREADABLE = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    EOFError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    struct.error,
    BytesLengthException,
    InvalidDicomError,
)

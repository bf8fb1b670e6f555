"""Every error the appliance raises on purpose, in one tree.

::

    ClinicError
    ├── SettingsError            clinic.toml cannot be used; carries every problem at once
    ├── HomeError                the home directory cannot be used (locked, read-only, full, newer)
    ├── HardwareError            the state of the machine cannot be read
    ├── InputError               one file or study from outside is not usable; it is quarantined
    ├── PolicyError              a policy pack cannot be loaded
    ├── ModelError               a model cannot be imported, loaded or promoted
    ├── DatasetError             a dataset cannot be built or would leak
    ├── PluginError              a plugin's manifest or entry point is unusable
    ├── NotFound                 no study, job, model … of that name
    ├── NotAllowed               this person's role does not permit the request
    ├── Conflict                 the thing is in a state that does not permit the request
    │   └── TooManyRequests      this person asks faster than anybody needs to
    └── ChildError               something went wrong in a child process   (retrying may help)
        ├── ChildDied            it exited or was killed by a signal
        ├── ChildTimedOut        it did not answer in time and was killed
        ├── ChildMisbehaved      it broke the protocol: rubbish, oversize, a path it may not name
        └── ChildRefused         it answered, in words, that it cannot do this

``retryable`` says whether trying the same thing again, unchanged, can succeed. Every message is a
sentence a person can act on and never contains personal data.
"""

from __future__ import annotations


class ClinicError(Exception):
    """Base of all errors raised on purpose; ``remedy`` says what a person can do."""

    retryable = False

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class SettingsError(ClinicError):
    """``clinic.toml`` cannot be used; ``problems`` lists every one with its path and line."""

    def __init__(self, message: str, *, problems: tuple[str, ...] = (), remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.problems = problems


class HomeError(ClinicError):
    """The home directory cannot be used."""


class HardwareError(ClinicError):
    """The state of the machine cannot be read."""

    retryable = True


class InputError(ClinicError):
    """A file or study from outside is not usable; ``code`` is stable, for statistics and tests."""

    def __init__(self, code: str, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.code = code


class PolicyError(ClinicError):
    """A policy pack cannot be loaded; the previous pack stays active."""


class ModelError(ClinicError):
    """A model cannot be imported, loaded, promoted or rolled back."""


class DatasetError(ClinicError):
    """A dataset cannot be built, or training on it would leak or mean nothing; ``problems`` lists all of a folder."""

    def __init__(self, message: str, *, problems: tuple[str, ...] = (), remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.problems = problems


class PluginError(ClinicError):
    """A plugin's manifest or entry point is unusable."""


class NotFound(ClinicError):
    """There is no such thing."""


class NotAllowed(ClinicError):
    """The person's role does not permit this."""


class Conflict(ClinicError):
    """The thing is in a state that does not permit this."""


class TooManyRequests(Conflict):
    """A person asks the control API faster than anybody needs to."""

    retryable = True


class ChildError(ClinicError):
    """Something went wrong in a child process; it costs one attempt of one job."""

    retryable = True


class ChildDied(ChildError):
    """The child exited or was killed by a signal."""


class ChildTimedOut(ChildError):
    """The child did not answer in time and was killed."""


class ChildMisbehaved(ChildError):
    """The child broke the protocol and was killed."""


class ChildRefused(ChildError):
    """The child answered that it cannot do this; ``code`` is stable, ``retryable`` is its own word."""

    def __init__(self, code: str, message: str, *, retryable: bool, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.code = code
        self.retryable = retryable

"""What may be said, to whom. Pure functions without input or output, but for the pack's files and the guard's child.

``text``, ``lexicon``, ``detectors`` and ``engine`` run in the guard child; ``client`` is the daemon's side of it.
"""

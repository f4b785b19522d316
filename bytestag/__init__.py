"""bytestag: share a directory, leave, and the network still has it.

Importing this package imports nothing else: commands that only print must start at once.
"""

__version__ = "0.1.0"

"""The version, alone, so that any part of the library may ask for it."""

__version__ = "0.1.0"

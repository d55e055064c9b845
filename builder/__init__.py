"""The cluster image builder: one cluster spec becomes media that install a working cluster."""

__version__ = "0.1.0"

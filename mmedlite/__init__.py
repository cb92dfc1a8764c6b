"""MMedLite: rebuild MMedAgent-RL (arXiv 2506.00555) and see which of its claims hold."""

__version__ = "0.1.0"

"""MMedLite: rebuild MMedAgent-RL (arXiv 2506.00555) and test its claims."""

__version__ = "0.1.0"

"""Scripts that make the stored artifacts and the figures."""

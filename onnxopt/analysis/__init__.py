"""Facts about a graph that passes ask the context for."""

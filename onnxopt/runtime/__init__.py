"""Running models on real runtimes: sessions, latency, and what a runtime really did with a graph."""

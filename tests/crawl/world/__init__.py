"""A search service and an image host on loopback that behave as a test says."""

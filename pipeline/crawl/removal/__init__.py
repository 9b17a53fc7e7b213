"""Removal of images from a crawl: on request, or because their owners have closed them since."""

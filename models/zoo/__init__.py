"""A small network and a few images that come with the package."""

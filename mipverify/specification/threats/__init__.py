"""What threats make of an image: which entries are which pixels, and what a transformed image is."""

"""A folder or list of liked images, in order, and the one preprocessing."""

"""Pure functions on arrays: how alike images are, and how sure one can be of a mean or a share."""

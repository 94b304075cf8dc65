"""One file, one verb: what happens to a request between its images and its drawings."""

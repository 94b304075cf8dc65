"""Rivals, one script each: they draw a request file into a folder that ``pigeon evaluate --baseline`` scores."""

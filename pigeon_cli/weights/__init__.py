"""Bytes on disk: model folders, their configuration and their weights files."""

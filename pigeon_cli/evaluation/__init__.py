"""Requests and folders of images to tables, pages and studies; the protocol of the paper (DESIGN.md section 2)."""

"""Boxes on the host: anchors, targets, detections, and how precise they are.

From outside: every module here. May import data.
"""

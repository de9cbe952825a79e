"""Measures of synthetic volumes: pure functions of arrays, one file per metric."""

"""A generator and a segmenter for voxelbench, installed like any other distribution."""

"""hitfinder finds the few hits among many long-tail SKUs from the early signals of small test batches."""

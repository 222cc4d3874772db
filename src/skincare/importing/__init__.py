"""Import of images that people already have: reading the source, grouping into products, conversion, the tables."""

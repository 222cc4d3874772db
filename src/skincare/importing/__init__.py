"""Import of an existing image collection: reading the source, grouping into products, conversion, tables."""

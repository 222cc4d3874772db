"""A product as structured data: the schema, what is known of it and from where, and how its fields are parsed."""

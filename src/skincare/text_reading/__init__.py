"""Reading what is printed on a pack: its lines of text, and the category that they speak of."""

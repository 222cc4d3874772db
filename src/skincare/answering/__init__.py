"""Answers of a model: how they are got, kept, read and explained."""

"""The embedded sample: a made-up shop with drawn products, and the tiny stand-in model."""

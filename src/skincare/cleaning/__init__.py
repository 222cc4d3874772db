"""Which images stay: metrics, checks, copies; help to choose limits; the cut to the product."""

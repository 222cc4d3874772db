"""Which images stay: measures, checks, copies; help to choose limits; the cut to the product."""

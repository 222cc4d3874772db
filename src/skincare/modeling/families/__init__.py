"""Model families: one adapter for each, with what differs in vision tower, processor and published shapes."""

"""Fine-tuning: recipes, run specification, memory plan, pre-flight checks, training loop, checkpoints, export."""

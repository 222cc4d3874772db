"""One fine-tuning run: recipes, memory plan, pre-flight, loop, states, several processes."""

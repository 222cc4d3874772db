"""What answers are worth: scores, intervals, confidence, comparisons; pure functions without torch."""

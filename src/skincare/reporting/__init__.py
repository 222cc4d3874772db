"""The report and the model card, from the files that the stages wrote."""

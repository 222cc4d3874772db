"""The HTTP service: worker processes that hold the predictor, batching, the FastAPI application, its page."""

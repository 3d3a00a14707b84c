"""The processes of `serve`: supervisor, workers, and the gateway that each worker builds."""

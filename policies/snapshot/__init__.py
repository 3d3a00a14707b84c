"""What every worker decides by, as of one moment, in memory."""

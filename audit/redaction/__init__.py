"""What is kept of a payload: secrets found and replaced, long things shortened, strange characters escaped."""

"""What is asked before a run, in one warm process: the data looked at, the memory planned, whether it can start."""

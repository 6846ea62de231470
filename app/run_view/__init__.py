"""One run drawn: shared by Train, while it trains, and Runs, ever after."""

"""The page as a whole: all tabs built and wired, open pages kept up to date. Only this package knows every tab."""

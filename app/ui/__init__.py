"""Widgets and HTML that know no tab: every tab may use them, they use none."""

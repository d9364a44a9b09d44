"""Help for other libraries, which are imported only here."""

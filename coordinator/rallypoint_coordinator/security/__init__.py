"""Who may do what, and how much of it. Pure, but for the file that says so (:mod:`.token_file`)."""

"""Tables of labelled documents, as people have them, read into the project's own form."""

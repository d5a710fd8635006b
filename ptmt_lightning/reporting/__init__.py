"""What is shown of finished runs: figures and tables, made from the files of their folders."""

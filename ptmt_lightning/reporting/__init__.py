"""Reports on finished runs: figures and tables, made from the files in their folders."""

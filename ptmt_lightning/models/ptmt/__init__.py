"""The method: prompt template, batches, what it computes for one, and how it is trained."""

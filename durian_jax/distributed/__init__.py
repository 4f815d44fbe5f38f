"""The mesh and the processes of a run."""

"""What asv and `make bench` time from commit to commit, by the package's public names alone: these files are today's,
and the package is that of any commit."""

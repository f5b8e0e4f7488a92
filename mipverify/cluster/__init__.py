"""Where samples run: this process, local processes, a Dask cluster."""

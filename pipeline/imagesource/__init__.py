"""Pictures that are already here: a folder, an archive or a table, in any of the usual layouts."""

"""Where pictures come from: one reader per dataset, one table of records."""

"""The built-in passes, one file each, found through entry points exactly as a third party's are."""

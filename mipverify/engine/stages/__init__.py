"""The stages of the cascade, one subject a file; `mipverify.engine.schedule` puts them in order."""

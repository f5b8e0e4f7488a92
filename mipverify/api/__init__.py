"""The public calls: models, arrays and loaders as people have them, turned into what the engine takes."""

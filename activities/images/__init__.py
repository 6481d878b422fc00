"""Images: fetched once, verified, inspected, kept under their digest; and the seed that tells a guest who it is."""

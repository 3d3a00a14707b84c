"""How many, how soon: counted on one machine, or on several by Redis."""

"""Raw file in, trusted examples out: read, bring to one shape, hold against the contract, split. No torch in here."""

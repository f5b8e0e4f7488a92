"""Questions about threats beyond balls: many input sets of one sample, or transforms of it, as one question."""
